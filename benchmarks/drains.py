"""How a backlog went: curves of how much was done by when."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Final

from benchmarks.place import Place
from benchmarks.results import Curve

PAUSE_SECONDS: Final = 0.05
DRAIN_SECONDS_MAX: Final = 600.0


@contextmanager
def watched(place: Place, events: int) -> Iterator["Future[Curve]"]:
    """Watch the topic fill from the block's begin on; the future has the curve when all events are there."""
    over = Event()
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(_watch, place, events, over)
        finally:
            over.set()


def _watch(place: Place, events: int, over: Event) -> Curve:
    curve, deadline = [(0.0, 0.0)], time.monotonic() + DRAIN_SECONDS_MAX
    while curve[-1][1] < events:
        if over.wait(PAUSE_SECONDS) or time.monotonic() > deadline:
            raise TimeoutError(f"{curve[-1][1]:,.0f} of {events:,} events were in Kafka in time")
        count = float(place.record_count())
        # After the answer: the first one may take seconds, until the client knows the new topic.
        curve.append((time.monotonic(), count))
    return begun(curve)


def begun(curve: Curve) -> Curve:
    """Return the curve from its first growth on, with time from zero: starting up is no part of the work."""
    growing = [point for point in curve if point[1] > 0]
    return [(at - growing[0][0], count) for at, count in growing]


def rate(curve: Curve) -> float:
    """Return how many a second, between the first sight and the last.

    Raises:
        ValueError: all was over at the first sight: there was too little to measure.
    """
    (first_at, first), (last_at, last) = curve[0], curve[-1]
    if last_at <= first_at:
        raise ValueError("the backlog was gone at the first sight: take a larger one")
    return (last - first) / (last_at - first_at)
