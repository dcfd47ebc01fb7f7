"""How often a relay looks: at once while little comes or much is left, else with pauses in which more gathers.

A batch costs a relay, PostgreSQL and the broker as much as some fifty of its rows. One that ran after each of the API's
commits took a third of the API's throughput; with pauses it takes a twentieth.
"""

import asyncio
import math
import time
from typing import Final

# Worth a pause: 1,000 rows a second with the settings as they come.
_GATHERED_ROWS_MIN: Final = 40
# Over about so long the rate is averaged, and so many times the rate that is worth a pause is the most that counts:
# neither a hiccup nor the end of a backlog is to make anybody wait.
_RATE_SECONDS: Final = 0.5
_RATE_MAX: Final = 8


class Pace:
    """Shared by the tasks of one relay.

    Args:
        gather_seconds: the pause after a batch while many rows come, but not more than are taken.
        batch_rows: a batch of more than half of it leaves rows behind, it's supposed.
    """

    def __init__(self, gather_seconds: float, batch_rows: int) -> None:
        self.is_behind = False
        self._gather_seconds = gather_seconds
        self._batch_rows = batch_rows
        self._worth = 0.0
        self._noted_at = self._not_before = time.monotonic()

    @property
    def pause_seconds(self) -> float:
        """How long until it is time for the next batch."""
        return max(0.0, self._not_before - time.monotonic())

    async def wait(self) -> None:
        """Wait until it is time for the next batch."""
        while pause_seconds := self.pause_seconds:
            await asyncio.sleep(pause_seconds)

    def note(self, rows: int) -> None:
        """Note that a batch is done, and of how many rows it was."""
        now = time.monotonic()
        seconds, self._noted_at = max(now - self._noted_at, 1e-6), now
        weight = -math.expm1(-seconds / _RATE_SECONDS)
        # How many gather in a pause, as a multiple of those that are worth it.
        worth = rows / seconds * self._gather_seconds / _GATHERED_ROWS_MIN
        self._worth += weight * (min(worth, _RATE_MAX) - self._worth)
        self.is_behind = 2 * rows > self._batch_rows
        if self.is_behind or self._worth < 1:
            self._not_before = now
        elif rows:
            self._not_before = now + self._gather_seconds
