import tomllib
from pathlib import Path

import pytest

from support.command_lines import WalletCtl, printed
from support.roles import Roles
from walletctl.console import Exit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["stack", "up"],
        ["stack", "status"],
        ["api", "serve"],
        ["relay", "run"],
        ["consumer", "run"],
        ["history", "serve"],
        ["history", "status"],
        ["history", "rebuild"],
        ["history", "dead-letters", "show"],
        ["history", "dead-letters", "retry"],
        ["history", "dead-letters", "prune"],
        ["wallet", "history"],
        ["wallet", "hold", "list"],
        ["wallet", "hold", "show"],
        ["wallet", "hold", "capture"],
        ["wallet", "hold", "void"],
        ["outbox", "replay"],
        ["outbox", "park"],
        ["outbox", "retry"],
        ["outbox", "skip"],
        ["outbox", "prune"],
        ["db", "migrate"],
        ["restore", "begin"],
        ["restore", "lost"],
        ["verify"],
    ],
    ids=" ".join,
)
def test_help_shows_an_example(walletctl: WalletCtl, command: list[str]) -> None:
    done = walletctl(*command, "--help")
    assert done.returncode == Exit.OK
    assert "walletctl" in done.stdout
    assert "Example" in done.stdout or "Start here" in done.stdout


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_the_one_of_the_package_in_one_line(walletctl: WalletCtl, option: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert walletctl(option).stdout == f"{project['name']} {project['version']}\n"


@pytest.mark.parametrize(
    ("command", "environment", "named"),
    [
        (["api", "serve"], {}, "DATABASE_URL"),
        (["api", "serve"], {"DATABASE_URL": "mysql://x/y"}, "DATABASE_URL"),
        (["api", "serve"], {"DATABASE_URL": "postgresql://x/y", "WALLET_API_PORT": "99999"}, "WALLET_API_PORT"),
        (["relay", "run"], {"DATABASE_URL": "postgresql://x/y"}, "KAFKA_BOOTSTRAP_SERVERS"),
        (["consumer", "run"], {"DATABASE_URL": "postgresql://x/y"}, "KAFKA_BOOTSTRAP_SERVERS"),
        (["outbox", "status"], {}, "DATABASE_URL"),
    ],
)
def test_invalid_settings_end_with_one_line_that_names_the_variable(
    walletctl: WalletCtl, command: list[str], environment: dict[str, str], named: str
) -> None:
    done = walletctl(*command, **environment)
    assert done.returncode == Exit.USAGE
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", [["outbox", "status"], ["history", "status"], ["db", "migrate"]], ids=" ".join)
def test_a_server_that_is_away_is_one_line_and_exit_code_3(walletctl: WalletCtl, command: list[str]) -> None:
    done = walletctl(*command, DATABASE_URL="postgresql://postgres@127.0.0.1:1/nowhere")
    assert done.returncode == Exit.UNREACHABLE
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_option_is_exit_code_2(walletctl: WalletCtl) -> None:
    assert walletctl("outbox", "list", "--nonsense").returncode == Exit.USAGE


def test_migrate_can_be_repeated_and_status_shows_the_revision(
    walletctl: WalletCtl, empty_database_url: str, roles: Roles
) -> None:
    before = walletctl("db", "status", "--json", DATABASE_URL=empty_database_url)
    assert before.returncode == Exit.FOUND_WRONG
    for _ in range(2):
        assert walletctl("db", "migrate", DATABASE_URL=empty_database_url, **roles.environment).returncode == Exit.OK
    after = walletctl("db", "status", "--json", DATABASE_URL=empty_database_url)
    assert after.returncode == Exit.OK
    assert all(schema["revision"] == schema["head"] for schema in printed(after)["schemas"])


def test_the_history_may_live_in_another_database(
    walletctl: WalletCtl, empty_database_url: str, database_url: str, roles: Roles
) -> None:
    urls = {"DATABASE_URL": database_url, "HISTORY_DATABASE_URL": empty_database_url}
    assert walletctl("db", "migrate", **urls, **roles.environment).returncode == Exit.OK
    assert walletctl("db", "status", **urls).returncode == Exit.OK
    assert walletctl("history", "status", "--json", **urls).returncode == Exit.OK
    assert walletctl("history", "status", DATABASE_URL=empty_database_url).returncode == Exit.OK


def test_a_missing_table_says_to_migrate(walletctl: WalletCtl, empty_database_url: str) -> None:
    done = walletctl("outbox", "status", DATABASE_URL=empty_database_url)
    assert done.returncode == Exit.UNREACHABLE
    assert "walletctl db migrate" in done.stderr
