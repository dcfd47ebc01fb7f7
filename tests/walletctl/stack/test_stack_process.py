import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Any

import psutil
import pytest

from walletctl.stack import process as module
from walletctl.stack.errors import RefusedError, SetupError, StackError
from walletctl.stack.launch import launch
from walletctl.stack.leftovers import birth, stop_leftovers, wait_until_gone
from walletctl.stack.process import ManagedProcess, ending_of
from walletctl.stack.readiness import Probe
from walletctl.stack.specs import ProcessSpec
from walletctl.stack.state import ProcessState, Status

Eventually = Callable[..., Awaitable[Any]]

SLEEP = "import time; time.sleep(60)"
IGNORE_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"
START_A_WORKER = (
    "import subprocess, sys;"
    f"worker = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], stdout=subprocess.DEVNULL);"
    "print(worker.pid, flush=True)"
)
WITH_A_WORKER = f"{START_A_WORKER}; {SLEEP}"


class FileProbe(Probe):
    """Ready if the process has written to its log; without a log, at once."""

    def __init__(self, log_file: Path | None = None) -> None:
        self._log_file = log_file

    async def problem(self) -> str | None:
        written = self._log_file is None or (self._log_file.exists() and self._log_file.stat().st_size > 0)
        return None if written else "it has said nothing"


def managed(tmp_path: Path, code: str, *, wait_for_output: bool = False) -> tuple[ManagedProcess, list[Status]]:
    log_file = tmp_path / "fake.log"
    statuses: list[Status] = []
    start = partial(launch, [sys.executable, "-c", code], on_parent_death=SIGTERM)
    probe = FileProbe(log_file if wait_for_output else None)
    spec = ProcessSpec("fake", "fake-1", start, probe, "http://fake")
    return ManagedProcess(spec, log_file, lambda _name, status, _detail: statuses.append(status)), statuses


async def stop(process: ManagedProcess, grace_seconds: float = 10) -> None:
    await process.stop(grace_seconds, asyncio.Event())


async def test_a_process_that_dies_is_started_again_and_counted(tmp_path: Path, eventually: Eventually) -> None:
    process, statuses = managed(tmp_path, SLEEP)
    await process.start(10)
    first = process.state
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)

    async def back() -> bool:
        return process.state.restarts == 1 and process.state.state is Status.READY

    await eventually(back, 10)
    assert process.state.pid not in {None, first.pid}
    await stop(process)
    assert statuses == [
        Status.STARTING,
        Status.READY,
        Status.RESTARTING,
        Status.RESTARTING,
        Status.READY,
        Status.STOPPED,
    ]
    assert process.state.pid is None


async def test_a_process_that_ends_before_it_is_ready_fails_the_start(tmp_path: Path) -> None:
    process, _ = managed(tmp_path, "raise SystemExit('no such port')")
    process.spec = ProcessSpec("fake", "fake-1", process.spec.launch, NeverReady(), "")
    with pytest.raises(StackError, match="fake-1 keeps ending") as caught:
        await process.start(20)
    await stop(process)
    assert caught.value.log_file is not None
    assert "no such port" in caught.value.log_file.read_text()


@pytest.mark.parametrize(("exit_code", "kind"), [(2, SetupError), (1, StackError)])
async def test_a_process_that_refuses_its_settings_fails_the_start_for_that_reason(
    tmp_path: Path, exit_code: int, kind: type[StackError]
) -> None:
    process, _ = managed(tmp_path, f"raise SystemExit({exit_code})")
    process.spec = ProcessSpec("fake", "fake-1", process.spec.launch, NeverReady(), "")
    with pytest.raises(StackError) as caught:
        await process.start(20)
    await stop(process)
    assert type(caught.value) is kind


class NeverReady(Probe):
    async def problem(self) -> str | None:
        return "asked in vain"


class RefusingProbe(Probe):
    async def problem(self) -> str | None:
        raise RefusedError("no such user")


async def test_a_process_that_is_not_ready_in_time_fails_the_start(tmp_path: Path) -> None:
    process, _ = managed(tmp_path, SLEEP)
    process.spec = ProcessSpec("fake", "fake-1", process.spec.launch, NeverReady(), "")
    with pytest.raises(StackError, match=r"was not ready within 0 s \(asked in vain\)"):
        await process.start(0.2)
    await stop(process)


async def test_a_server_that_refuses_the_stack_fails_the_start_at_once(tmp_path: Path) -> None:
    process, _ = managed(tmp_path, SLEEP)
    process.spec = ProcessSpec("fake", "fake-1", process.spec.launch, RefusingProbe(), "")
    with pytest.raises(StackError, match="fake-1 refuses the stack: no such user"):
        await asyncio.wait_for(process.start(60), 10)
    await stop(process)


async def test_a_process_that_ignores_its_signal_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    process, _ = managed(tmp_path, IGNORE_SIGTERM, wait_for_output=True)
    await process.start(10)
    pid = process.state.pid
    assert pid is not None
    await stop(process, grace_seconds=0.2)
    assert not psutil.pid_exists(pid)


async def test_the_workers_of_a_killed_process_are_killed_with_it(tmp_path: Path, eventually: Eventually) -> None:
    process, _ = managed(tmp_path, WITH_A_WORKER, wait_for_output=True)
    await process.start(10)
    worker = psutil.Process(int(process.log_file.read_text().split()[0]))
    leader = process.state.pid
    assert leader is not None
    os.kill(leader, signal.SIGKILL)

    async def gone() -> bool:
        return not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE

    await eventually(gone, 10)
    await stop(process)


def test_pauses_grow_to_ten_seconds() -> None:
    pauses = [module.RESTART_PAUSES.after(times) for times in range(1, 9)]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


@pytest.mark.parametrize(
    ("code", "words"), [(3, "ended with exit code 3"), (-9, "was killed by SIGKILL"), (-99, "was killed by signal 99")]
)
def test_how_a_process_ended_is_said_in_words(code: int, words: str) -> None:
    assert ending_of(code) == words


async def test_leftovers_are_stopped_only_if_they_are_the_very_same_process(tmp_path: Path) -> None:
    process, _ = managed(tmp_path, SLEEP)
    await process.start(10)
    state = process.state
    assert state.pid is not None
    assert state.created == birth(state.pid)
    # By its creation time, this is another process with the same pid.
    stranger = ProcessState(name="fake-1", pid=state.pid, created=(state.created or 0) - 60)
    assert await asyncio.to_thread(stop_leftovers, [stranger, ProcessState(name="fake-2")]) == []
    assert psutil.pid_exists(state.pid)
    await stop(process)
    assert await asyncio.to_thread(stop_leftovers, [state]) == []


def test_a_leftover_is_stopped() -> None:
    # Its parent has ended, as after the supervisor was killed.
    done = subprocess.run([sys.executable, "-c", START_A_WORKER], stdout=subprocess.PIPE, check=True)
    pid = int(done.stdout)
    assert stop_leftovers([ProcessState(name="relay", pid=pid, created=birth(pid))]) == ["relay"]
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_that_has_ended_is_gone_even_if_no_parent_reaps_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START_A_WORKER + f"; worker.kill(); {SLEEP}"], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert wait_until_gone(pid, 10)
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        assert not wait_until_gone(parent.pid, 0.1)
        parent.kill()
