"""Pauses that grow while a server is away (back-off), and that end when the worker is told to stop."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Pauses:
    """Pauses that begin at `first_seconds` and double up to `longest_seconds`."""

    first_seconds: float
    longest_seconds: float

    def after(self, times: int) -> float:
        """Return the length in seconds of the `times`-th pause in a row, counted from 1."""
        return float(min(self.longest_seconds, self.first_seconds * 2 ** min(times - 1, 30)))


FAILURE_PAUSES = Pauses(0.1, 5.0)
"""A worker retries a server that is away for ever, with pauses of at most 5 seconds."""


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait that long, or until `stop`. Return False, since no notification of work ended the pause."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return False
