"""Blocking work in daemon threads, which don't delay the end of the program."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

CANCELLED_SECONDS_MAX = 5.0

T = TypeVar("T")


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Run `work` in a daemon thread and return its result.

    A cancelled caller waits 5 seconds for the work to end. After that the thread ends with the process, and the
    thread's child process with it. With `asyncio.to_thread` the process would wait for the end of a download.
    """
    loop = asyncio.get_running_loop()
    settled: asyncio.Future[Callable[[], T]] = loop.create_future()

    def settle(outcome: Callable[[], T]) -> None:
        if not settled.done():
            settled.set_result(outcome)

    def run() -> None:
        outcome = _outcome(work)
        # The loop may have ended: then no caller waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, daemon=True).start()
    try:
        outcome = await asyncio.shield(settled)
    except asyncio.CancelledError:
        await asyncio.wait({settled}, timeout=CANCELLED_SECONDS_MAX)
        raise
    return outcome()


def _outcome(work: Callable[[], T]) -> Callable[[], T]:
    """Do the work; return a function that returns its result or raises its error."""
    try:
        value = work()
    except Exception as error:  # noqa: BLE001 - raised again where it is awaited
        caught = error

        def raise_it() -> T:
            raise caught

        return raise_it
    return lambda: value
