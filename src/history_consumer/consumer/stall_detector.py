"""Telling an idle consumer from a stalled one, which gets no record though the broker has more."""

from collections.abc import Mapping
from typing import Final

PATIENCE_SECONDS: Final = 30.0
PATIENCE_SECONDS_MAX: Final = 600.0
_LOOKS_MIN: Final = 3


class StallDetector:
    """Finds partitions whose position doesn't move, though it isn't the partition's end and no record is in hand.

    A client was seen in this state once, without an error, after its broker's disk had been restored to an earlier
    time. A new client has none of the old one's state.
    """

    def __init__(self) -> None:
        self._unmoved: dict[int, tuple[int, float]] = {}
        self._patience_seconds = PATIENCE_SECONDS
        self._looked_at = 0.0

    def look(self, offsets: Mapping[int, int], ends: Mapping[int, int], now: float, *, idle: bool) -> list[int]:
        """Return the partitions that are stalled; after that, a stall takes twice as long to be found.

        Time between two looks counts only in part: the process may have been frozen.

        Args:
            offsets: the positions of the partitions that are read, before the broker was asked.
            ends: the offset after each partition's last record, as the broker said.
            now: the monotonic clock, in seconds.
            idle: whether no record was in hand. Other time doesn't count.
        """
        seconds = min(now - self._looked_at, self._patience_seconds / _LOOKS_MIN) if idle else 0.0
        self._looked_at = now
        unmoved: dict[int, tuple[int, float]] = {}
        for partition, offset in offsets.items():
            if ends.get(partition, offset) != offset:
                before, before_seconds = self._unmoved.get(partition, (-1, 0.0))
                unmoved[partition] = (offset, before_seconds + seconds if before == offset else 0.0)
        stalled = sorted(partition for partition, (_, time) in unmoved.items() if time >= self._patience_seconds)
        self._unmoved = {} if stalled else unmoved
        if stalled:
            self._patience_seconds = min(2 * self._patience_seconds, PATIENCE_SECONDS_MAX)
        elif not unmoved:
            self._patience_seconds = PATIENCE_SECONDS
        return stalled
