"""`walletctl verify` as a command: its output, its options and its exit codes."""

import asyncio

import orjson
import typer
from typer.testing import CliRunner

from common.settings import PipelineSettings
from common.tables.roles import Role
from support.command_lines import environment
from support.pipelines import tamper
from walletctl.commands.verify import verify
from walletctl.console import Exit
from walletctl.verify.audit import BALANCES


def _run_command(settings: PipelineSettings | None, *arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(verify)
    result = CliRunner().invoke(app, arguments, env=environment(settings, Role.AUDITOR) if settings else {})
    return result.exit_code, result.stdout


def test_the_command_prints_tables_or_json(settings: PipelineSettings) -> None:
    code, output = _run_command(settings)
    assert code == Exit.OK
    assert "everything agrees" in output
    asyncio.run(tamper(settings.database_url, "UPDATE wallet.wallets SET balance_minor = balance_minor + 1"))
    code, output = _run_command(settings)
    assert code == Exit.FOUND_WRONG
    assert output.count("differs:") == 7
    code, output = _run_command(settings, "--json")
    assert code == Exit.FOUND_WRONG
    report = orjson.loads(output)
    assert report["ok"] is False
    assert report["difference_count"] == len(report["differences"]) == 7
    assert report["checks"][0]["name"] == BALANCES
    assert report["checks"][0]["differences"] == 7
    assert report["horizon"]["last_outbox_id"] > 0


def test_bad_configuration_is_a_usage_error() -> None:
    assert _run_command(None)[0] == Exit.USAGE


def test_since_tells_after_which_time_it_compared_or_why_it_compared_everything(settings: PipelineSettings) -> None:
    code, output = _run_command(settings, "--since")
    assert code == Exit.OK
    assert "everything was compared: no clean run is stored" in output
    code, output = _run_command(settings, "--since")
    assert code == Exit.OK
    assert "only after" in output
    assert "everything was compared" not in output
