"""Drains of a backlog, as curves: the number of events over time."""

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
def recorded(place: Place, events: int) -> Iterator["Future[Curve]"]:
    """Record how the topic fills during the block; the future returns the curve when all events are there."""
    over = Event()
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(_record, place, events, over)
        finally:
            over.set()


def _record(place: Place, events: int, over: Event) -> Curve:
    curve, deadline = [(0.0, 0.0)], time.monotonic() + DRAIN_SECONDS_MAX
    while curve[-1][1] < events:
        if over.wait(PAUSE_SECONDS) or time.monotonic() > deadline:
            raise TimeoutError(f"only {curve[-1][1]:,.0f} of {events:,} events were in Kafka in time")
        count = float(place.record_count())
        # Timed after the answer: the first one may take seconds, until the client knows the new topic.
        curve.append((time.monotonic(), count))
    return begun(curve)


def begun(curve: Curve) -> Curve:
    """Return the curve from its first growth on, at time zero: the start-up is not measured."""
    growing = [point for point in curve if point[1] > 0]
    return [(at - growing[0][0], count) for at, count in growing]


def rate(curve: Curve) -> float:
    """Return the events a second, between the first point and the last.

    Raises:
        ValueError: the curve has one point: the backlog was too small to measure.
    """
    (first_at, first), (last_at, last) = curve[0], curve[-1]
    if last_at <= first_at:
        raise ValueError("the backlog was drained before the second point: take a larger one")
    return (last - first) / (last_at - first_at)
