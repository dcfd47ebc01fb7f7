"""A URL or a password shows in no output of a command and in no log of a process, whatever is wrong with it."""

import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from confluent_kafka.admin import AdminClient
from sqlalchemy.engine import make_url

from support.command_lines import ARGUMENTS, WalletCtl, walletctl
from support.processes import COMMANDS, Pipeline
from support.roles import new_roles
from support.topics import fresh_topic
from tools.reference import settings_of_commands
from walletctl.console import Exit

__all__ = ["walletctl"]

Eventually = Callable[..., Awaitable[Any]]
CANARY = "c4n4ry"
WRONG_URLS = {
    "malformed": f"postgresql://ada:{CANARY}/{CANARY}@127.0.0.1/wallet?{CANARY}={CANARY}",
    "host away": f"postgresql://ada:{CANARY}@127.0.0.1:1/wallet",
    "no file": f"postgresql://ada:{CANARY}@127.0.0.1:1/wallet?sslmode=require&sslcert=/nowhere&sslpassword={CANARY}",
}


@pytest.fixture(scope="module")
def kafka(kafka_admin: AdminClient, kafka_bootstrap_servers: str) -> Iterator[dict[str, str]]:
    """The variables of a topic."""
    with fresh_topic(kafka_admin) as topic:
        yield {"KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap_servers, "KAFKA_TOPIC": topic}


# `restore lost` asks for the database only if the topic has events, `stack demo` after the APIs, `db grants` never.
_ASK_NO_DATABASE = {"restore lost", "stack demo", "db grants"}


@pytest.mark.parametrize("command", [name for name in settings_of_commands() if name not in _ASK_NO_DATABASE])
@pytest.mark.parametrize("wrong", [*WRONG_URLS, "refused"])
def test_no_command_shows_its_url(
    wrong: str, command: str, walletctl: WalletCtl, postgres_url: str, kafka: dict[str, str]
) -> None:
    refused = make_url(postgres_url).set(username="no_role", password=CANARY)
    url = WRONG_URLS.get(wrong) or refused.render_as_string(hide_password=False)
    result = walletctl(*command.split(), *ARGUMENTS.get(command, []), **kafka, DATABASE_URL=url)
    assert result.returncode == (Exit.UNREACHABLE if wrong == "host away" else Exit.USAGE)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert CANARY not in result.stderr


def test_a_process_with_a_malformed_url_ends_with_one_line() -> None:
    variables = {"DATABASE_URL": WRONG_URLS["malformed"], "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "walletctl", *command],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for command in COMMANDS.values()
    ]
    for process in started:
        out, told = process.communicate()
        assert (process.returncode, out, told.count(b"\n")) == (Exit.USAGE, b"", 1)
        assert b"DATABASE_URL: has an @ after the first one" in told
        assert CANARY.encode() not in told


async def test_no_process_shows_its_url_while_it_waits(
    kafka: dict[str, str], tmp_path: Path, eventually: Eventually
) -> None:
    environment = {**kafka, "DATABASE_URL": WRONG_URLS["host away"], "LOG_LEVEL": "debug"}
    pipeline = Pipeline(environment, new_roles(), tmp_path, eventually)
    wrong = cycle([WRONG_URLS["host away"], WRONG_URLS["no file"]])
    processes = [pipeline.make(name, DATABASE_URL=next(wrong)) for name in COMMANDS]
    try:
        for process in processes:
            process.start()
        for process in processes:
            shown = await eventually(lambda process=process: states_of(process.url), 60)
            assert CANARY not in shown
            assert process.child is not None
            assert CANARY not in " ".join(psutil.Process(process.child.pid).cmdline())
    finally:
        for process in processes:
            if process.is_running:
                process.stop(signal.SIGKILL)
    logs = [process.log_file.read_text() for process in processes]
    assert all(logs)
    assert not [line for log in logs for line in log.splitlines() if CANARY in line or "Traceback" in line]


async def states_of(url: str) -> str | None:
    """Return what `/ready` shows when the database has been tried."""
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            shown = (await client.get(f"{url}/ready")).text
        except httpx.TransportError:
            return None
    return shown if "Errno 111" in shown or "provide the file" in shown else None
