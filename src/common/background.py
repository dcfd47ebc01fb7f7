"""Supervised background tasks: one that ends is logged, counted and run again, until its block ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from prometheus_client import Counter

from common.pauses import FAILURE_PAUSES

log = structlog.get_logger()

background_failures = Counter(
    "background_failures_total",
    "Background tasks that ended and were run again, by task.",
    ("task",),
)


@asynccontextmanager
async def in_background(task: str, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run the work during the block, and cancel it at the end of the block.

    Work that ends or fails earlier is run again after a pause, which grows up to 5 seconds.

    Args:
        task: the name in the log and in the metric.
        work: an endless loop.
    """
    working = asyncio.create_task(_run_forever(task, work), name=task)
    try:
        yield
    finally:
        working.cancel()
        await asyncio.wait({working})


def is_told_to_end() -> bool:
    """Whether the running task was cancelled. A CancelledError may also come from a future that the task awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _run_forever(task: str, work: Callable[[], Awaitable[None]]) -> None:
    failures = 0
    while True:
        began_at = time.monotonic()
        error: BaseException | None = None
        try:
            await work()
        except (Exception, asyncio.CancelledError) as failure:
            if is_told_to_end():
                raise
            error = failure
        failures = 1 if time.monotonic() - began_at > FAILURE_PAUSES.longest_seconds else failures + 1
        pause_seconds = FAILURE_PAUSES.after(failures)
        background_failures.labels(task).inc()
        log.error("background_task_ended", task=task, exc_info=error, failures=failures, pause_seconds=pause_seconds)
        await asyncio.sleep(pause_seconds)
