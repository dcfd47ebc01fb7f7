"""Blocking work beside the event loop that nobody has to wait for when the program is told to stop."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

CANCELLED_SECONDS_MAX = 5.0

T = TypeVar("T")


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread and return its result.

    A caller who is cancelled waits for short work to end. It isn't held up, as with `asyncio.to_thread`, by a
    thread that waits, say, for a download: that ends with the process, and its child with the thread.
    """
    loop = asyncio.get_running_loop()
    settled: asyncio.Future[Callable[[], T]] = loop.create_future()

    def settle(outcome: Callable[[], T]) -> None:
        if not settled.done():
            settled.set_result(outcome)

    def run() -> None:
        outcome = _outcome(work)
        # The loop may have ended meanwhile: then nobody waits.
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
    """Do the work; return what gives its result, or raises its error, to the one who waits."""
    try:
        value = work()
    except Exception as error:  # noqa: BLE001 - raised again where it is awaited
        caught = error

        def raise_it() -> T:
            raise caught

        return raise_it
    return lambda: value
