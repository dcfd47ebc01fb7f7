"""A background task is run again whenever it ends, until its block ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from structlog.testing import LogCapture

from common import background
from common.background import in_background
from common.pauses import Pauses

Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """The log's entries. Tasks are run again at once."""
    seen = LogCapture()
    log = structlog.wrap_logger(None, processors=[seen], wrapper_class=structlog.make_filtering_bound_logger(0))
    monkeypatch.setattr(background, "log", log)
    monkeypatch.setattr(background, "FAILURE_PAUSES", Pauses(0.001, 60))
    return seen


async def cancelled_from_within() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def failed() -> None:
    raise RuntimeError("a defect")


async def ended() -> None:
    pass


@pytest.mark.parametrize("end", [failed, cancelled_from_within, ended], ids=lambda end: end.__name__)
async def test_a_task_that_ends_is_logged_counted_and_run_again(
    seen: LogCapture, eventually: Eventually, end: Callable[[], Awaitable[None]]
) -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            await asyncio.Event().wait()
        await end()

    async def is_third() -> bool:
        return runs == 3

    name = f"work-{end.__name__}"
    async with in_background(name, work):
        await eventually(is_third)
    assert [(entry["event"], entry["task"], entry["failures"]) for entry in seen.entries] == [
        ("background_task_ended", name, 1),
        ("background_task_ended", name, 2),
    ]
    assert REGISTRY.get_sample_value("background_failures_total", {"task": name}) == 2


async def test_a_task_ends_with_its_block_and_the_blocks_error_is_raised(seen: LogCapture) -> None:
    cleaned = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async def fail_beside_it() -> None:
        async with in_background("work", work):
            await asyncio.sleep(0)
            await failed()

    with pytest.raises(RuntimeError, match="a defect"):
        await fail_beside_it()
    assert cleaned.is_set()
    assert not seen.entries
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "work"]


async def test_a_block_ends_though_its_task_is_between_two_runs(
    seen: LogCapture, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FAILURE_PAUSES", Pauses(3600, 3600))

    async def is_logged() -> bool:
        return bool(seen.entries)

    async with asyncio.timeout(20), in_background("work", failed):
        await eventually(is_logged)
