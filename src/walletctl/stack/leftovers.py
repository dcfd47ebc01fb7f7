"""Processes of a stack whose supervisor was killed: found by pid and birth, never by name."""

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
    """Return when a process began, Unix time in seconds; None if there is none."""
    # Imported late because it's an extra, and only the stack needs it.
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def stop_leftovers(processes: Sequence[ProcessState]) -> list[str]:
    """Stop those of `processes` that still run, the last first, and wait until they are gone.

    Returns:
        The names of those that ran.
    """
    found = [(state, process) for state in reversed(processes) if (process := _survivor(state))]
    for state, process in found:
        _signal(process, fast=state.name == "postgres")
    _wait([process for _, process in found])
    return [state.name for state, _ in found]


def _survivor(state: ProcessState) -> "psutil.Process | None":
    """Return the very process that the state speaks of, not one that has got its pid since."""
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
        # Each leads a session of its own: its workers go with it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, SIGKILL)
    _all_gone(processes, GRACE_SECONDS)


def wait_until_gone(pid: int, timeout_seconds: float) -> bool:
    """Wait for a process that isn't a child to end; return whether it did."""
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
    """Whether it has ended; in a container nobody may ever reap it (psutil's own waiting waits for that)."""
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
