import asyncio
import time

import pytest

from outbox_relay.adaptive_batching import AdaptiveBatching

BATCH_ROWS = 2000


class Clock:
    """A clock that moves only when a test sets it."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def pause_after(clock: Clock, rows: int, every_seconds: float) -> float:
    """Return the pause, of 40 ms at most, after many such batches."""
    batching = AdaptiveBatching(0.04, BATCH_ROWS)
    for _ in range(1000):
        clock.seconds += every_seconds
        batching.note(rows)
    return batching.pause_seconds


@pytest.mark.parametrize(
    ("rows", "every_seconds"),
    [(0, 0.005), (1, 0.1), (3, 0.005), (20, 0.04), (BATCH_ROWS, 0.04)],
    ids=["nothing", "little", "500 a second", "500 a second, seldom", "a backlog"],
)
def test_there_is_no_pause_while_few_rows_come_or_a_backlog_is_left(
    clock: Clock, rows: int, every_seconds: float
) -> None:
    assert pause_after(clock, rows, every_seconds) == 0


@pytest.mark.parametrize(("rows", "every_seconds"), [(6, 0.005), (44, 0.04), (80, 0.01)])
def test_there_is_a_pause_while_many_rows_come(clock: Clock, rows: int, every_seconds: float) -> None:
    assert pause_after(clock, rows, every_seconds) == pytest.approx(0.04)


def test_batches_that_end_together_are_counted_together(clock: Clock) -> None:
    batching = AdaptiveBatching(0.04, BATCH_ROWS)
    for _ in range(100):
        clock.seconds += 0.02
        batching.note(0)
        clock.seconds += 0.00001
        batching.note(60)
    assert batching.pause_seconds == pytest.approx(0.04)


def test_rows_that_come_late_after_a_delay_cause_no_pause(clock: Clock) -> None:
    batching = AdaptiveBatching(0.04, BATCH_ROWS)
    for _ in range(1000):
        clock.seconds += 0.006
        batching.note(3)
    clock.seconds += 0.2
    for _ in range(50):
        batching.note(2)
        clock.seconds += 0.001
        assert batching.pause_seconds == 0


def test_a_full_batch_ends_the_pause_for_all_tasks(clock: Clock) -> None:
    batching = AdaptiveBatching(0.04, BATCH_ROWS)
    clock.seconds += 0.3
    batching.note(900)
    assert batching.pause_seconds > 0
    assert not batching.is_behind
    batching.note(BATCH_ROWS)
    assert batching.pause_seconds == 0
    assert batching.is_behind


def test_after_a_backlog_the_pauses_end_soon(clock: Clock) -> None:
    batching = AdaptiveBatching(0.04, BATCH_ROWS)
    for _ in range(1000):
        clock.seconds += 0.04
        batching.note(BATCH_ROWS)
    for _ in range(200):
        clock.seconds += 0.005
        batching.note(2)
    assert batching.pause_seconds == 0


async def test_the_pause_ends_by_itself() -> None:
    batching = AdaptiveBatching(0.01, BATCH_ROWS)
    batching.note(0)
    while not batching.pause_seconds:
        await asyncio.sleep(0.001)
        batching.note(200)
    await asyncio.wait_for(batching.wait(), 20)
    assert batching.pause_seconds == 0
