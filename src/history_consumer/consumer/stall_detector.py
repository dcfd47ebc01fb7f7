"""Telling a consumer that has nothing to read from one that doesn't read what there is."""

from collections.abc import Mapping
from typing import Final

PATIENCE_SECONDS: Final = 30.0
PATIENCE_SECONDS_MAX: Final = 600.0
_LOOKS_MIN: Final = 3


class StallDetector:
    """Partitions that stand still though the broker's end isn't where they stand, and nothing of them is in hand.

    So a client was seen once, without an error, after its broker's whole disk had been put back to an earlier time. A
    new client is free of whatever the old one remembers.
    """

    def __init__(self) -> None:
        self._standing: dict[int, tuple[int, float]] = {}
        self._patience_seconds = PATIENCE_SECONDS
        self._looked_at = 0.0

    def look(self, offsets: Mapping[int, int], ends: Mapping[int, int], now: float, *, idle: bool) -> list[int]:
        """Return the partitions that have stood still for too long; then their time begins anew, and is twice as long.

        Time that this process was not looking counts little: it may have been frozen.

        Args:
            offsets: where the partitions that are read stood before the broker was asked.
            ends: the offsets behind their last records, as the broker said.
            now: the monotonic clock, in seconds.
            idle: whether nothing was in hand: only that time counts.
        """
        seconds = min(now - self._looked_at, self._patience_seconds / _LOOKS_MIN) if idle else 0.0
        self._looked_at = now
        before = self._standing
        self._standing = {}
        for partition, offset in offsets.items():
            if ends.get(partition, offset) != offset:
                stood_at, stood_seconds = before.get(partition, (-1, 0.0))
                self._standing[partition] = (offset, stood_seconds + seconds if stood_at == offset else 0.0)
        if not self._standing:
            self._patience_seconds = PATIENCE_SECONDS
        found = sorted(partition for partition, (_, stood) in self._standing.items() if stood >= self._patience_seconds)
        if found:
            self._standing = {}
            self._patience_seconds = min(2 * self._patience_seconds, PATIENCE_SECONDS_MAX)
        return found
