"""Controls a stack from another process, through its files and its pid: state, stop, detached start."""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGTERM

from walletctl.stack.errors import NotRunningError, StackError, failure
from walletctl.stack.launch import open_log
from walletctl.stack.leftovers import stop_leftovers, wait_until_gone
from walletctl.stack.readiness import probe_of
from walletctl.stack.specs import log_file, walletctl
from walletctl.stack.state import ProcessState, StackState, Status, lock_holder, read_state

START_SECONDS_MAX = 900.0
STOP_SECONDS_MAX = 120.0
TAIL_LINES = 20


def running_state(data_dir: Path) -> StackState:
    """Return the state of the stack that runs on `data_dir`.

    Raises:
        NotRunningError: no stack runs there.
    """
    holder = lock_holder(data_dir)
    state = read_state(data_dir) if holder else None
    if state is None or state.supervisor_pid != holder:
        raise NotRunningError(data_dir)
    return state


async def present_state(data_dir: Path) -> StackState:
    """Return the state of the stack that runs on `data_dir`, after asking each ready process whether it still is.

    Raises:
        NotRunningError: no stack runs there.
    """
    state = running_state(data_dir)
    # The address of PostgreSQL that is shown has no password.
    urls = {process.name: process.url for process in state.processes}
    urls |= {"postgres": state.environment.get("DATABASE_SUPERUSER_URL", urls.get("postgres"))}
    checked = await asyncio.gather(*(_checked(process, urls[process.name]) for process in state.processes))
    return state.model_copy(update={"processes": checked})


async def _checked(process: ProcessState, url: str | None) -> ProcessState:
    if process.state is not Status.READY or url is None or await probe_of(url).ready():
        return process
    return process.model_copy(update={"state": Status.UNREADY})


def stop(data_dir: Path) -> bool:
    """Stop the stack on `data_dir` and wait for its end; without a supervisor, stop the processes that it left.

    Returns:
        Whether a process ran.

    Raises:
        StackError: the supervisor didn't end in time.
    """
    holder = lock_holder(data_dir)
    if holder is None:
        last = read_state(data_dir)
        return bool(stop_leftovers(last.processes if last else []))
    with suppress(ProcessLookupError):
        os.kill(holder, SIGTERM)
    if not wait_until_gone(holder, STOP_SECONDS_MAX):
        raise StackError(
            f"the stack on {data_dir} (pid {holder}) did not stop within {STOP_SECONDS_MAX:.0f} s: see its logs"
        )
    return True


def start_detached(data_dir: Path, arguments: Sequence[str], progress: Callable[[StackState], None]) -> StackState:
    """Start a supervisor in its own session and wait until its stack is ready.

    Args:
        data_dir: the stack's data directory.
        arguments: those of `walletctl stack up`, without --detach.
        progress: called with the present state while waiting.

    Raises:
        StackError: the supervisor ended before the stack was ready; the message is the supervisor's.
    """
    log_path = log_file(data_dir, "supervisor")
    with open_log(log_path) as log, log_path.open("rb") as written:
        written.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            walletctl("stack", "up", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            return _wait_until_ready(data_dir, process, progress)
        except StackError as error:
            said = written.read().decode(errors="replace").partition("error: ")[2].strip()
            raise failure(process.returncode)(said or str(error)) from error
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise


def _wait_until_ready(
    data_dir: Path, process: "subprocess.Popen[bytes]", progress: Callable[[StackState], None]
) -> StackState:
    deadline = time.monotonic() + START_SECONDS_MAX
    while process.poll() is None:
        state = read_state(data_dir)
        if state is not None and state.supervisor_pid == process.pid:
            progress(state)
            if state.ready:
                return state
        if time.monotonic() > deadline:
            process.terminate()
            process.wait()
            raise StackError(f"the stack was not ready within {START_SECONDS_MAX:.0f} s")
        time.sleep(0.05)
    raise StackError(f"the supervisor ended with exit code {process.returncode}")


def tail(file: Path) -> list[str]:
    """Return the last lines of a log, none if there is no log."""
    with suppress(FileNotFoundError):
        return file.read_text("utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return []
