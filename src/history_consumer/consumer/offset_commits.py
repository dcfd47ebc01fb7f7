"""The offsets that are committed to Kafka, for tools that show the lag; the consumer itself never reads them."""

import time
from typing import Final

from history_consumer.consumer.subscription import Subscription

# Committed after each batch, they doubled the broker's work at 400 events a second.
_COMMIT_INTERVAL_SECONDS: Final = 1.0


class OffsetCommits:
    """The partitions whose position has moved since the last commit to Kafka."""

    def __init__(self) -> None:
        self._moved: set[int] = set()
        self._commit_at = 0.0

    def note(self, partitions: set[int]) -> None:
        """Note that the positions of these partitions have moved."""
        self._moved |= partitions

    async def commit_due(self, subscription: Subscription) -> None:
        """Commit the positions that have moved, at most once a second."""
        if not self._moved or time.monotonic() < self._commit_at:
            return
        self._commit_at = time.monotonic() + _COMMIT_INTERVAL_SECONDS
        held = subscription.assignment.held
        positions = [position for partition, position in held.items() if partition in self._moved]
        self._moved.clear()
        if positions:
            await subscription.commit_offsets(positions)

    def clear(self) -> None:
        """Forget what has moved: the membership has ended."""
        self._moved.clear()
