"""Each option of each command is tried with extreme values of its type; Typer lists the options."""

import asyncio
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import typer
from sqlalchemy import text
from typer.core import TyperArgument, TyperCommand, TyperGroup

from common.postgres.engine import operator_engine
from common.settings import PipelineSettings
from support.databases import text_of
from walletctl.cli import app, main
from walletctl.console import Exit

INTEGERS = ["0", "-1", "1", str(2**31), str(2**63 - 1), str(2**63), "9" * 5000, "1e3", "x", "", "\uff11"]
FLOATS = ["0", "-1", "0.1", "1e-320", "1e308", "nan", "inf", "-inf", "1" * 400, "x", ""]
TEXTS = ["", " ", "'; DROP TABLE x", "%s{0}[red]", "ö" * 100_000, "a\0b", "\udcff", "\x1b[31m", "--", "-1"]
UUIDS = ["", "x", "0" * 32, "{" + "0" * 32 + "}", "urn:uuid:" + "0" * 32, "f" * 10_000]
TIMES = ["", "x", "0001-01-01", "9999-12-31T23:59:59.999999", "0001-01-01T00:00+14:00", "2026-W01", "1" * 5000]

# These serve until they are stopped, or start servers. Other tests run them.
SERVING = {"api serve", "relay run", "consumer run", "history serve", "stack up", "stack demo"}
# Arguments that a command needs beside the option that is tried. None lets a command write.
BESIDE = {
    "outbox park": {"row_id": ["1"], "reason": ["--reason", "x"]},
    "outbox skip": {"row_id": ["1"], "reason": ["--reason", "x"]},
    "outbox show": {"name": ["1"]},
    "outbox prune": {"dry_run": ["--dry-run"]},
    "outbox replay": {"dry_run": ["--dry-run"], "everything": ["--all"]},
    "outbox retry": {"wallet": ["--wallet", "0" * 32]},
    "history dead-letters show": {"dead_letter_id": ["1"]},
    "history dead-letters retry": {"everything": ["--all"]},
    "history dead-letters prune": {"older_than_days": ["--older-than-days", "1"], "dry_run": ["--dry-run"]},
    **{
        f"wallet {name}": {"wallet_id": ["0" * 32], "reason": ["--reason", "x"]}
        for name in ("freeze", "unfreeze", "close", "reopen")
    },
    "wallet ledger": {"wallet_id": ["0" * 32]},
    "wallet limits": {"wallet_id": ["0" * 32], "reason": ["--reason", "x"]},
    "wallet statement": {
        "wallet_id": ["0" * 32],
        "start": ["--from", "2026-01-01"],
        "end": ["--to", "2026-01-02"],
    },
}
WRITTEN = text("""
    SELECT (SELECT count(*) FROM wallet.outbox_audit), (SELECT count(*) FROM wallet.source_epochs),
        (SELECT sum(hashtext(outbox::text)) FROM wallet.outbox), (SELECT count(*) FROM history.dead_letters)
""")


def commands(path: str, command: object) -> Iterator[tuple[str, TyperCommand]]:
    if isinstance(command, TyperGroup):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from commands(f"{path} {name}".strip(), command.get_command(context, name))
    elif isinstance(command, TyperCommand):
        yield path, command


def extremes(parameter: Any) -> list[str]:
    """Return the values to try for a parameter: invalid ones, and the limits of its type."""
    if parameter.metavar == "TIME":
        return TIMES
    by_type = {int: INTEGERS, float: FLOATS, UUID: UUIDS, bool: []}
    return by_type.get(parameter.type_descriptor.annotation, TEXTS)


def attempts() -> Iterator[tuple[str, list[str]]]:
    for path, command in commands("", typer.main.get_command(app)):
        for parameter in command.params:
            if parameter.name == "help":
                continue
            beside = {**BESIDE.get(path, {})}
            if beside.pop(parameter.name or "", None) and parameter.name == "dead_letter_id":
                beside.pop("everything", None)
            given = [word for words in beside.values() for word in words]
            for value in extremes(parameter):
                is_argument = isinstance(parameter, TyperArgument)
                tried = [*given, "--", value] if is_argument else [*given, f"{parameter.opts[0]}={value}"]
                # A serving command is only tried with values that it must refuse.
                if path not in SERVING or value == "a\0b" or (value == "-1" and extremes(parameter) is INTEGERS):
                    yield path, [*path.split(), *tried]


ATTEMPTS = list(attempts())


def test_every_command_and_every_type_is_tried() -> None:
    paths = {path for path, _ in ATTEMPTS}
    assert {"outbox replay", "outbox list", "history dead-letters retry", "restore lost", "stack up"} <= paths
    for values in (INTEGERS, FLOATS, TEXTS, UUIDS, TIMES):
        assert any(words[-1].endswith(values[2]) for _, words in ATTEMPTS)


def written(settings: PipelineSettings) -> Any:
    async def read() -> Any:
        async with operator_engine(settings.database_url) as engine, engine.connect() as connection:
            return (await connection.execute(WRITTEN)).one()

    return asyncio.run(read())


@pytest.mark.parametrize("path", sorted({path for path, _ in ATTEMPTS}))
def test_no_argument_is_a_traceback_and_a_wrong_one_writes_nothing(
    settings: PipelineSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    path: str,
) -> None:
    for name in ("database_url", "kafka_bootstrap_servers", "kafka_topic"):
        monkeypatch.setenv(name.upper(), text_of(getattr(settings, name)))
    monkeypatch.chdir(tmp_path)
    before = written(settings)
    for words in (words for tried, words in ATTEMPTS if tried == path):
        monkeypatch.setattr(sys, "argv", ["walletctl", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as ended:
            main()
        said = "".join(capfd.readouterr())
        shown = ascii(words)[:300]
        assert ended.value.code in set(Exit), shown
        assert "Traceback" not in said, shown
        assert not {"\x1b", "\0"} & set(said), shown
    assert written(settings) == before
