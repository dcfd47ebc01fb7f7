"""A failure of a server or of this machine is one line, with the cause and the way out, and the right exit code."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from alembic.util import CommandError
from confluent_kafka import KafkaError, KafkaException
from sqlalchemy.engine import make_url

from support.command_lines import WalletCtl
from support.databases import run_sql
from walletctl.console import Exit
from walletctl.failures import explain

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(walletctl: WalletCtl) -> Run:
    """Run a command; return its exit code and its one line on standard error, apart from warnings."""

    def run(*arguments: str, **environment: str) -> tuple[int, str]:
        done = walletctl(*arguments, **environment)
        # A migration warns of the tests' server, which runs without fsync.
        (line,) = (line for line in done.stderr.splitlines() if not line.startswith("warning: "))
        return done.returncode, line

    return run


def execute(url: str, *statements: str) -> None:
    asyncio.run(run_sql(url, *statements))


@pytest.fixture
def role(postgres_url: str, database_url: str) -> Iterator[str]:
    """A role that may only connect; it is dropped after the test."""
    name = f"role_{uuid4().hex}"
    execute(postgres_url, f"CREATE ROLE {name} LOGIN PASSWORD 'right'")
    yield name
    execute(database_url, f"DROP OWNED BY {name}")
    execute(postgres_url, f"DROP ROLE {name}")


def as_role(database_url: str, role: str) -> str:
    return make_url(database_url).set(username=role, password="right").render_as_string(hide_password=False)


def test_a_role_name_that_postgresql_keeps_for_itself_is_refused_with_the_way_out(run: Run, database_url: str) -> None:
    code, line = run("db", "migrate", DATABASE_URL=database_url, WALLET_API_ROLE="pg_wallet")
    assert code == Exit.USAGE
    assert line.endswith("(PostgreSQL keeps this name for itself: choose another one)")


def test_a_missing_grant_is_named(run: Run, database_url: str, role: str) -> None:
    code, line = run("outbox", "status", DATABASE_URL=as_role(database_url, role))
    assert code == Exit.USAGE
    assert "permission denied for schema wallet" in line
    assert "grant it to the role" in line


@pytest.mark.parametrize("command", [["outbox", "status"], ["history", "status"], ["db", "migrate"]], ids=" ".join)
def test_a_missing_role_is_not_reported_as_a_server_that_is_away(
    run: Run, database_url: str, command: list[str]
) -> None:
    code, line = run(*command, DATABASE_URL=as_role(database_url, "nobody_of_that_name"))
    assert code == Exit.USAGE
    assert 'role "nobody_of_that_name"' in line or "password authentication failed" in line
    assert "of the URL" in line
    assert "migrate" not in line


@pytest.mark.parametrize("command", [["outbox", "status"], ["history", "status"], ["db", "migrate"]], ids=" ".join)
def test_a_missing_database_is_named(run: Run, database_url: str, command: list[str]) -> None:
    url = make_url(database_url).set(database="none_of_that_name").render_as_string(hide_password=False)
    code, line = run(*command, DATABASE_URL=url)
    assert code == Exit.USAGE
    assert 'database "none_of_that_name" does not exist' in line
    assert "create that database" in line


@pytest.mark.parametrize(
    "command",
    [["outbox", "status"], ["outbox", "list"], ["history", "status"], ["history", "dead-letters", "list"]],
    ids=" ".join,
)
def test_missing_tables_say_to_migrate(run: Run, empty_database_url: str, command: list[str]) -> None:
    code, line = run(*command, DATABASE_URL=empty_database_url)
    assert code == Exit.UNREACHABLE
    assert "walletctl db migrate" in line


def test_a_read_only_server_is_named(run: Run, database_url: str, operator_url: str) -> None:
    name = make_url(database_url).database
    execute(database_url, f"ALTER DATABASE \"{name}\" SET default_transaction_read_only = 'on'")
    code, line = run("outbox", "prune", DATABASE_URL=operator_url)
    assert code == Exit.UNREACHABLE
    assert "read-only" in line
    assert "name the primary" in line


@pytest.mark.skipif(os.name == "nt", reason="the working directory can't be removed there")
def test_a_working_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'rmdir "{gone}" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "walletctl", "stack", "status"],
        env={},
        cwd=gone,
        capture_output=True,
        check=False,
    )
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == Exit.USAGE
    assert "the working directory is gone" in line


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free disk space", Exit.USAGE),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied", Exit.USAGE),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), "/x: No such file", Exit.USAGE),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "a server is away", Exit.UNREACHABLE),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "TMPDIR", Exit.USAGE),
        (ModuleNotFoundError("No module named 'psutil'", name="psutil"), "its extra `local`", Exit.USAGE),
        (OSError("Multiple exceptions: refused"), "a server is away", Exit.UNREACHABLE),
        (TimeoutError(), "a server is away: no answer in time", Exit.UNREACHABLE),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "a server is away", Exit.UNREACHABLE),
        (ExceptionGroup("two", [ConnectionResetError(), TimeoutError()]), "a server is away", Exit.UNREACHABLE),
        (CommandError("Can't locate revision identified by 'x'"), "of another version", Exit.USAGE),
        (asyncpg.InvalidPasswordError("no"), "the password of the URL", Exit.USAGE),
        (asyncpg.QueryCanceledError("no"), "run the command again later", Exit.UNREACHABLE),
        (asyncpg.LockNotAvailableError("no"), "run the command again later", Exit.UNREACHABLE),
        (asyncpg.DiskFullError("no"), "PostgreSQL's disk is full", Exit.UNREACHABLE),
        (asyncpg.CannotConnectNowError("starting up"), "is away or going down", Exit.UNREACHABLE),
        (asyncpg.CheckViolationError("no"), "SQLSTATE 23514", Exit.USAGE),
        (KafkaException(KafkaError(KafkaError._TRANSPORT)), "Kafka is away", Exit.UNREACHABLE),
        (KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)), "Kafka refuses", Exit.USAGE),
    ],
)
def test_each_kind_of_failure_has_its_line_and_its_code(error: Exception, said: str, code: Exit) -> None:
    explained = explain(error)
    assert explained is not None
    assert said in explained[0]
    assert explained[1] == code


def test_a_defect_keeps_its_traceback() -> None:
    assert explain(ZeroDivisionError()) is None
    assert explain(ModuleNotFoundError("No module named 'wallet'", name="wallet")) is None
    assert explain(ExceptionGroup("two", [ZeroDivisionError(), TimeoutError()])) is None


def test_tables_of_a_newer_program_are_named(run: Run, database_url: str) -> None:
    execute(database_url, "UPDATE wallet.alembic_version SET version_num = 'of_tomorrow'")
    code, line = run("db", "downgrade", "--yes", DATABASE_URL=database_url)
    assert code == Exit.USAGE
    assert "of_tomorrow" in line
    assert "another version" in line


@pytest.mark.parametrize("command", ["api serve", "relay run", "consumer run", "history serve"])
def test_too_few_open_files_for_any_connection_are_named(database_url: str, command: str) -> None:
    limited = ["sh", "-c", 'ulimit -n 80; exec "$@"', "sh", sys.executable, "-m", "walletctl", *command.split()]
    environment = {"DATABASE_URL": database_url, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "LOG_LEVEL": "error"}
    done = subprocess.run(limited, env=environment, capture_output=True, check=False)
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == Exit.USAGE
    assert "80 open files leave none" in line
    assert "raise ulimit -n" in line
