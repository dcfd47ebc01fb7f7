"""Pauses between a relay's batches while many rows come, so that batches are fewer and larger.

While few rows come, or a backlog is left, there is no pause. A batch costs the relay, PostgreSQL and the broker as much
as some fifty of its rows. A batch after each commit of the API took a third of the API's throughput; with pauses the
relay takes a twentieth.
"""

import asyncio
import time
from typing import Final

# A pause that gathers fewer rows isn't worth it: with the default settings, 1,000 rows a second.
_GATHERED_ROWS_MIN: Final = 40
# The rate is measured over this time, so that a burst after a short delay isn't taken for a rate.
_WINDOW_SECONDS: Final = 0.25


class AdaptiveBatching:
    """The pauses of one relay; its tasks share them.

    Args:
        gather_seconds: the pause after a batch, while many rows come and the relay keeps up with them.
        batch_rows: the largest batch. After one of more than half of it, the relay counts as behind.
    """

    def __init__(self, gather_seconds: float, batch_rows: int) -> None:
        self.is_behind = False
        self._gather_seconds = gather_seconds
        self._batch_rows = batch_rows
        self._is_rate_high = False
        self._rows = 0
        self._window_began = self._not_before = time.monotonic()

    @property
    def pause_seconds(self) -> float:
        """The seconds until the next batch may begin."""
        return max(0.0, self._not_before - time.monotonic())

    async def wait(self) -> None:
        """Wait until the next batch may begin."""
        while pause_seconds := self.pause_seconds:
            await asyncio.sleep(pause_seconds)

    def note(self, rows: int) -> None:
        """Note that a batch of so many rows is done."""
        now = time.monotonic()
        self._rows += rows
        seconds = now - self._window_began
        if seconds >= _WINDOW_SECONDS:
            self._is_rate_high = self._rows * self._gather_seconds >= _GATHERED_ROWS_MIN * seconds
            self._rows, self._window_began = 0, now
        self.is_behind = 2 * rows > self._batch_rows
        if self.is_behind or not self._is_rate_high:
            self._not_before = now
        elif rows:
            self._not_before = now + self._gather_seconds
