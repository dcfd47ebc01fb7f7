"""`walletctl stack` as a user runs it, with real servers and processes."""

import asyncio
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import psutil
import pytest

from support.processes import http_client
from walletctl.console import Exit
from walletctl.stack.launch import LOG_BYTES_MAX
from walletctl.stack.state import StackState, read_state

pytestmark = pytest.mark.timeout(300)

Eventually = Callable[..., Awaitable[Any]]

NAMES = {
    "postgres",
    "kafka",
    "wallet-api",
    "outbox-relay-1",
    "outbox-relay-2",
    "history-consumer-1",
    "history-consumer-2",
    "history-api",
}


class Stack:
    """The commands on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def run(self, command: str, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "walletctl", "stack", command, "--data-dir", str(self.data_dir), *options],
            capture_output=True,
            text=True,
            # A killed stack's consumers keep their partitions for this long.
            env={**os.environ, "CONSUMER_SESSION_TIMEOUT_SECONDS": "2", **environment},
            timeout=200,
            check=False,
        )

    def up(self, *options: str) -> None:
        done = self.run("up", "--detach", *options)
        assert done.returncode == 0, done.stderr
        assert "stack down" in done.stdout

    def processes(self) -> dict[str, dict[str, Any]]:
        listed = json.loads(self.run("status", "--json").stdout)["processes"]
        return {process["name"]: process for process in listed}

    def environment(self) -> dict[str, str]:
        script = 'eval "$1"; env -0'
        exports = self.run("env").stdout
        shell = subprocess.run(["sh", "-c", script, "sh", exports], stdout=subprocess.PIPE, text=True, check=True)
        return dict(line.split("=", 1) for line in shell.stdout.split("\0") if line)

    def state(self) -> StackState:
        state = read_state(self.data_dir)
        assert state is not None
        return state

    def url(self, name: str) -> str:
        return next(process.url for process in self.state().processes if process.name == name and process.url)

    def client(self, name: str) -> httpx.AsyncClient:
        return http_client(self.url(name), api_key=self.state().environment["WALLET_API_KEY"], timeout=20)

    def pids(self) -> list[int]:
        return [process.pid for process in self.state().processes if process.pid]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack below a directory that only its owner may enter."""
    private = tmp_path / "it's private"
    private.mkdir(mode=0o700)
    stack = Stack(private / "stack")
    try:
        yield stack
    finally:
        stack.run("down")


async def test_a_stack_lives_is_killed_bit_by_bit_and_comes_back_with_its_data(
    stack: Stack, eventually: Eventually
) -> None:
    stack.up("--relays=2", "--consumers=2", "--api-workers=2")
    processes = stack.processes()
    assert set(processes) == NAMES
    assert all(set(process) == {"name", "pid", "state", "restarts", "url"} for process in processes.values())
    assert stack.state().ready
    assert not any(process["restarts"] for process in processes.values())

    async def all_ready() -> bool:
        # A consumer to which the group gives partitions later is unready until it has read from them.
        return {process["state"] for process in stack.processes().values()} == {"ready"}

    await eventually(all_ready, 20)
    wallet = await create_wallet(stack)
    key_file = stack.data_dir / "api-key"
    assert key_file.read_text() == stack.environment()["WALLET_API_KEY"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in (key_file, stack.data_dir / "stack.json")} == {0o600}
    assert not any(key_file.read_text() in log.read_text() for log in stack.data_dir.glob("logs/*"))
    await assert_passwords_are_needed_and_kept_secret(stack)

    second = stack.run("up")
    assert second.returncode == 1
    assert len(second.stderr.strip().splitlines()) == 1
    assert f"pid {stack.state().supervisor_pid}" in second.stderr
    assert stack.run("reset", "--yes").returncode == 1

    killed = {"outbox-relay-1", "wallet-api", "postgres", "kafka"}
    for name in killed:
        os.kill(processes[name]["pid"], signal.SIGKILL)

    async def all_back() -> bool:
        restarted = {process.name for process in stack.state().processes if process.restarts}
        return stack.state().ready and restarted >= killed

    await eventually(all_back, 90)
    assert await get_wallet(stack, wallet) == 200

    before = stack.state()
    pids = stack.pids()
    os.kill(before.supervisor_pid, signal.SIGKILL)
    done = stack.run("status", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"processes": []})

    log = stack.data_dir / "logs" / "kafka.log"
    os.truncate(log, LOG_BYTES_MAX + 1)
    stack.up("--relays=1", "--consumers=1")
    assert log.stat().st_size < LOG_BYTES_MAX < log.with_name("kafka.log.1").stat().st_size
    assert not any(map(is_alive, pids))
    assert stack.state().ports.items() <= before.ports.items()
    assert await get_wallet(stack, wallet) == 200

    assert stack.run("down").returncode == 0
    assert stack.run("status").returncode == 1
    assert stack.run("reset", "--yes").returncode == 0
    assert not stack.data_dir.exists()


STRANGE_ENVIRONMENT = {
    "DATABASE_URL": "postgresql://192.0.2.1/other",
    "kafka_bootstrap_servers": "192.0.2.1:9092",
    "RELAY_OPS_HOST": "192.0.2.1",
    "PGSSLMODE": "require",
    "PGTARGETSESSIONATTRS": "standby",
    "PGPASSFILE": "/",
    "JAVA_TOOL_OPTIONS": "-Xmx1m",
    "JDK_JAVA_OPTIONS": "--nonsense",
    "KAFKA_OPTS": "--nonsense",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
    "http_proxy": "http://127.0.0.1:9",
    "no_proxy": "",
    "NO_PROXY": "",
    "TZ": "Nowhere/At_All",
    "LC_ALL": "C",
}


def test_a_stack_of_any_name_starts_and_starts_again_whatever_stands_in_the_environment(tmp_path: Path) -> None:
    strange = Stack(tmp_path / 'Ωmega, naïve #1 = 2: "y" $HOME `id` \\t\\u0041 100%s [red] ')

    def run(command: str, *options: str) -> "subprocess.CompletedProcess[str]":
        done = strange.run(command, *options, **STRANGE_ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        return done

    try:
        run("up", "--detach", "--relays=1", "--consumers=1")
        assert strange.environment()["WALLET_API_URL"] == strange.url("wallet-api")
        wallet = asyncio.run(create_wallet(strange))
        assert asyncio.run(history_of(strange, wallet)) == [1]
        run("status")
        run("down")
        # As an earlier version left it, whose server asked for no password.
        (strange.data_dir / "postgres.password").unlink()
        run("up", "--detach", "--relays=1", "--consumers=1")
        assert asyncio.run(history_of(strange, wallet)) == [1]
        # The topic has its records too.
        assert verified(strange).returncode == 0
    finally:
        run("down")
    assert [path.name for path in tmp_path.iterdir()] == [strange.data_dir.name]
    log = (strange.data_dir / "logs" / "kafka.log").read_text()
    assert "Picked up" not in log


@pytest.mark.parametrize("name", ["two\nlines", "bell\a", "bytes\udcff", "x" * 250 + "/" + "y" * 250 + "/" + "z" * 400])
def test_a_name_that_can_not_be_written_down_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    done = Stack(tmp_path / name).run("up", "--detach")
    assert done.returncode == Exit.USAGE
    # The error is of --data-dir, or of an argument with such characters.
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_an_error_proposes_can_be_typed(tmp_path: Path) -> None:
    done = Stack(tmp_path / "it's [/] $HOME").run("down")
    assert done.returncode == 0
    assert "it's [/] $HOME" in done.stderr
    done = Stack(tmp_path / "it's [/] $HOME").run("env")
    proposed = done.stderr.partition("Start one: ")[2]
    assert shlex.split(proposed)[-1] == str(tmp_path / "it's [/] $HOME")


async def test_two_stacks_that_start_at_once_run_side_by_side_and_ephemeral_ones_leave_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    other = Stack(tmp_path / "other")
    try:
        await asyncio.gather(
            *(asyncio.to_thread(one.up, "--ephemeral", "--relays=0", "--consumers=0") for one in (stack, other))
        )
        ours, theirs = stack.environment(), other.environment()
        names = (
            "WALLET_API_URL",
            "HISTORY_API_URL",
            "DATABASE_URL",
            "DATABASE_SUPERUSER_URL",
            "KAFKA_BOOTSTRAP_SERVERS",
        )
        assert all(ours[name] != theirs[name] for name in names)
        assert await get_wallet(other, await create_wallet(stack)) == 404
    finally:
        other.run("down")
    assert stack.run("status").returncode == 0
    pids = stack.pids()
    assert stack.run("down").returncode == 0
    assert not any(map(is_alive, pids))
    assert list(stack.data_dir.iterdir()) == []
    assert list(other.data_dir.iterdir()) == []


def test_a_service_that_can_not_start_fails_the_start_with_its_own_words(stack: Stack) -> None:
    done = stack.run("up", "--detach", "--relays=1", "--consumers=0", RELAY_BATCH_ROWS="not a number")
    assert done.returncode == Exit.USAGE
    assert "outbox-relay-1 keeps ending" in done.stderr
    assert "RELAY_BATCH_ROWS" in done.stderr
    assert "Traceback" not in done.stderr
    assert stack.run("status").returncode == 1


def test_ctrl_c_stops_a_stack_that_is_still_starting(stack: Stack) -> None:
    command = [sys.executable, "-m", "walletctl", "stack", "up", "--ephemeral", "--data-dir", str(stack.data_dir)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "postgres" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
    assert list(stack.data_dir.iterdir()) == []


def verified(stack: Stack) -> "subprocess.CompletedProcess[bytes]":
    """Run `walletctl verify` as the operator, whom `stack env` names."""
    environment = {**os.environ, **stack.environment()}
    return subprocess.run([sys.executable, "-m", "walletctl", "verify"], env=environment, check=False)


async def assert_passwords_are_needed_and_kept_secret(stack: Stack) -> None:
    environment = stack.environment()
    shown = stack.run("status").stdout + stack.run("status", "--json").stdout
    urls = [environment["DATABASE_URL"], environment["DATABASE_SUPERUSER_URL"], stack.state().auditor_url]
    assert [urlsplit(url).username for url in urls] == ["wallet_operator", "postgres", "wallet_auditor"]
    for url in urls:
        password = urlsplit(url).password
        assert password
        for wrong in ("", "wrong"):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(url, password=wrong)
        connection = await asyncpg.connect(url)
        is_superuser = await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert is_superuser == (url == environment["DATABASE_SUPERUSER_URL"])
        await connection.close()
        assert not [file for file in (stack.data_dir / "logs").iterdir() if password in file.read_text()]
        assert not [pid for pid in stack.pids() if password in " ".join(psutil.Process(pid).cmdline())]
        assert password not in shown
    for name in ("stack.json", "postgres.password"):
        assert (stack.data_dir / name).stat().st_mode & 0o777 == 0o600


async def create_wallet(stack: Stack) -> str:
    async with stack.client("wallet-api") as api:
        reply = await api.post("/wallets", json={"user_id": "someone", "currency": "EUR"})
    wallet_id = reply.raise_for_status().json()["id"]
    assert isinstance(wallet_id, str)
    return wallet_id


async def history_of(stack: Stack, wallet_id: str) -> list[int]:
    # A request waits for the pipeline for 2 s at most, so several are sent.
    parameters = {"min_version": 1}
    async with stack.client("history-api") as api:
        for _ in range(10):
            reply = await api.get(f"/history/wallets/{wallet_id}", params=parameters)
            if reply.status_code == 200:
                return [item["wallet_version"] for item in reply.json()["items"]]
    raise AssertionError(reply.text)


async def get_wallet(stack: Stack, wallet_id: str) -> int:
    async with stack.client("wallet-api") as api:
        return (await api.get(f"/wallets/{wallet_id}")).status_code


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
