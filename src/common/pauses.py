"""Pauses that end when a worker is told to stop, and grow while a server is away."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Pauses:
    """Pauses that grow from `first_seconds` to at most `longest_seconds`, doubling."""

    first_seconds: float
    longest_seconds: float

    def after(self, times: int) -> float:
        """Return how long to pause the `times`-th time in a row, counted from 1."""
        return float(min(self.longest_seconds, self.first_seconds * 2 ** min(times - 1, 30)))


FAILURE_PAUSES = Pauses(0.1, 5.0)
"""How long a worker waits for a server that is away: for ever, asking at least every 5 seconds."""


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait that long, or until `stop`; return False: nothing says that there is work."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return False
