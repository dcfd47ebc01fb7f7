import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from tools.servers import postgres_server
from walletctl.stack import launch as launching
from walletctl.stack.errors import RefusedError, StackError
from walletctl.stack.launch import launch, run_step, setpriv
from walletctl.stack.postgres import Postgres
from walletctl.stack.readiness import PostgresProbe
from walletctl.stack.threads import in_daemon_thread

NO_SYNC = {"fsync": "off", "shared_buffers": "16MB"}


async def value(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_postgres_runs_below_a_private_directory_and_keeps_its_data(tmp_path: Path) -> None:
    private = tmp_path / "of nobody's concern"
    private.mkdir(mode=0o700)
    with postgres_server(private, NO_SYNC) as url:
        await value(url, "CREATE TABLE kept AS SELECT 7 AS seven")
        assert await value(url, "SHOW fsync") == "off"
        assert await value(url, "SHOW synchronous_commit") == "on"
        assert await value(url, "SHOW wal_level") == "logical"
    with postgres_server(private, NO_SYNC) as url:
        assert await value(url, "SELECT seven FROM kept") == 7
    assert private.stat().st_mode & 0o777 == 0o700


async def test_postgres_starts_again_after_a_kill(tmp_path: Path) -> None:
    with postgres_server(tmp_path, NO_SYNC) as url:
        pid_file = tmp_path / "postgres" / "postmaster.pid"
        first = psutil.Process(int(pid_file.read_text().split()[0]))
        await value(url, "CREATE TABLE kept AS SELECT 7 AS seven")
        sessions = first.children()
        os.kill(first.pid, signal.SIGKILL)
        # The next server does not start while one of them still has the shared memory.
        _, alive = psutil.wait_procs(sessions, timeout=60)
        assert not alive
    assert pid_file.exists()
    with postgres_server(tmp_path, NO_SYNC) as url:
        assert await value(url, "SELECT seven FROM kept") == 7


STRANGE_NAME = "Ωmega, naïve #1 = 2: 'x' \"y\" $HOME \\t\\u0041 100% [red] "


def test_postgres_keeps_its_data_below_a_directory_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "standby")
    monkeypatch.setenv("PGOPTIONS", "-c x=y")
    directory = tmp_path / STRANGE_NAME
    for statement in ("CREATE TABLE kept AS SELECT 7 AS seven", "SELECT seven FROM kept"):
        with postgres_server(directory, NO_SYNC) as url:
            asyncio.run(value(f"{url}?sslmode=disable&target_session_attrs=any", statement))
    assert [path.name for path in tmp_path.iterdir()] == [STRANGE_NAME]


async def test_a_database_that_refuses_the_stack_is_said_at_once(tmp_path: Path) -> None:
    with postgres_server(tmp_path, NO_SYNC) as url:
        stranger = PostgresProbe(url.replace("//postgres:", "//stranger:"))
        with pytest.raises(RefusedError, match='password authentication failed for user "stranger"'):
            await stranger.problem()
        assert await stranger.ready() is False
        with pytest.raises(RefusedError, match='database "elsewhere" does not exist'):
            await PostgresProbe(url.replace("/wallet", "/elsewhere")).problem()


async def test_an_interrupted_initdb_is_begun_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18")
    with postgres_server(tmp_path, NO_SYNC) as url:
        assert await value(url, "SELECT 1") == 1
    assert not half.exists()


def test_a_wrong_setting_is_one_line_that_names_the_log(tmp_path: Path) -> None:
    with (
        pytest.raises(StackError, match=r"(?s)^creating the database failed.*max_connections") as caught,
        postgres_server(tmp_path, {"max_connections": "many"}),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_data_directory_belongs_to_who_may_run_postgres(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", 1, tmp_path / "log", NO_SYNC)
    server.prepare()
    assert server.data_dir.stat().st_uid != 0
    os.chown(server.data_dir, 4711, 4711)
    command = Postgres(server.data_dir, 1, tmp_path / "log").command()
    assert "4711" in command


@pytest.mark.skipif(os.geteuid() != 0, reason="others run PostgreSQL as themselves")
def test_without_setpriv_root_runs_postgres_as_another_user_or_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "setpriv", lambda: None)
    server = Postgres(tmp_path / "postgres", 1, tmp_path / "log")
    try:
        assert server.launch().user == 65534
    except StackError as error:
        assert "Install setpriv" in str(error)  # noqa: PT017 - which one depends on where the clone is


@pytest.mark.skipif(setpriv() is None, reason="needs setpriv")
async def test_a_process_does_not_outlive_a_parent_that_is_killed(
    tmp_path: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    code = f"""
import os, pathlib, sys, time
from signal import SIGTERM
from walletctl.stack.launch import launch, open_log, spawn
log_file = pathlib.Path({str(tmp_path / "log")!r})
start = launch([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"], on_parent_death=SIGTERM)
with open_log(log_file) as log:
    child = spawn(start, log)
print(child.pid, flush=True)
while not log_file.stat().st_size:
    time.sleep(0.01)
os.kill(os.getpid(), 9)
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, check=False)
    pid = int(done.stdout)

    async def gone() -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    await eventually(gone, 10)


def test_a_failed_step_repeats_its_last_words() -> None:
    code = "import sys; sys.exit('the thing\\nthe reason\\n\\tat some.Java(line)')"
    step = launch([sys.executable, "-c", code], on_parent_death=signal.SIGKILL)
    with pytest.raises(StackError, match=r"^a step failed: the thing; the reason$"):
        run_step("a step", step)


async def test_the_error_of_a_thread_is_raised_where_it_is_awaited() -> None:
    def fail() -> None:
        raise StackError("no")

    with pytest.raises(StackError, match="no"):
        await in_daemon_thread(fail)
    assert await in_daemon_thread(lambda: 7) == 7
