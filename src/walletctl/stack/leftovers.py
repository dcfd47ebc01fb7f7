"""Stops processes that a killed supervisor left behind: found by pid and creation time, never by name."""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from signal import SIGINT, SIGKILL, SIGTERM
from typing import TYPE_CHECKING

from walletctl.stack.state import ProcessState

if TYPE_CHECKING:
    import psutil

GRACE_SECONDS = 10.0
SAME_BIRTH_SECONDS = 2.0
PAUSE_SECONDS = 0.02


def birth(pid: int) -> float | None:
    """Return when a process was created, in Unix time; None if it doesn't exist."""
    # Imported late, because it is an extra that only the stack needs.
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def stop_leftovers(processes: Sequence[ProcessState]) -> list[str]:
    """Stop those of `processes` that still run, the last first, and wait for their end.

    Returns:
        The names of the processes that ran.
    """
    found = [(state, process) for state in reversed(processes) if (process := _survivor(state))]
    for state, process in found:
        _signal(process, fast=state.name == "postgres")
    _wait([process for _, process in found])
    return [state.name for state, _ in found]


def _survivor(state: ProcessState) -> "psutil.Process | None":
    """Return the process of this state, if it still runs; another process may have its pid by now."""
    import psutil

    if state.pid is None or state.created is None:
        return None
    try:
        process = psutil.Process(state.pid)
        same = abs(process.create_time() - state.created) < SAME_BIRTH_SECONDS
        return process if same and not _is_gone(process) else None
    except psutil.Error:
        return None


def _signal(process: "psutil.Process", *, fast: bool) -> None:
    import psutil

    with suppress(psutil.Error):
        process.send_signal(SIGINT if fast else SIGTERM)


def _wait(processes: "list[psutil.Process]") -> None:
    if _all_gone(processes, GRACE_SECONDS):
        return
    for process in (process for process in processes if not _is_gone(process)):
        # Each leads its own session: its workers are killed with it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, SIGKILL)
    _all_gone(processes, GRACE_SECONDS)


def wait_until_gone(pid: int, timeout_seconds: float) -> bool:
    """Wait for the end of a process that isn't a child; return whether it ended in time."""
    import psutil

    try:
        return _all_gone([psutil.Process(pid)], timeout_seconds)
    except psutil.NoSuchProcess:
        return True


def _all_gone(processes: "Iterable[psutil.Process]", timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while not all(map(_is_gone, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_SECONDS)
    return True


def _is_gone(process: "psutil.Process") -> bool:
    """Return whether it has ended. A zombie counts: in a container it may never be reaped, and psutil would wait."""
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
