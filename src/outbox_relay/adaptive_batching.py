"""How often a relay looks: at once while little comes or much is left, else with pauses in which more gathers.

A batch costs a relay, PostgreSQL and the broker as much as some fifty of its rows. One that ran after each of the API's
commits took a third of the API's throughput; with pauses it takes a twentieth.
"""

import asyncio
import time
from typing import Final

# Worth a pause: 1,000 rows a second with the settings as they come.
_GATHERED_ROWS_MIN: Final = 40
# Over so long rows are counted: what came late behind a hiccup is a burst, not a rate.
_WINDOW_SECONDS: Final = 0.25


class AdaptiveBatching:
    """Shared by the tasks of one relay.

    Args:
        gather_seconds: the pause after a batch while many rows come, but not more than are taken.
        batch_rows: a batch of more than half of it leaves rows behind, it's supposed.
    """

    def __init__(self, gather_seconds: float, batch_rows: int) -> None:
        self.is_behind = False
        self._gather_seconds = gather_seconds
        self._batch_rows = batch_rows
        self._is_worth_it = False
        self._rows = 0
        self._window_began = self._not_before = time.monotonic()

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
        self._rows += rows
        seconds = now - self._window_began
        if seconds >= _WINDOW_SECONDS:
            self._is_worth_it = self._rows * self._gather_seconds >= _GATHERED_ROWS_MIN * seconds
            self._rows, self._window_began = 0, now
        self.is_behind = 2 * rows > self._batch_rows
        if self.is_behind or not self._is_worth_it:
            self._not_before = now
        elif rows:
            self._not_before = now + self._gather_seconds
