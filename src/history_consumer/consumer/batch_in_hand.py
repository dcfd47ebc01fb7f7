"""The records in hand: polled, and not applied yet."""

import time
from collections.abc import Mapping

from common import failpoints
from history_consumer import metrics
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import Record
from history_consumer.consumer.subscription import Subscription


class BatchInHand:
    """The batch that is applied now, and the records that were polled meanwhile.

    A batch stays in hand until it is applied, however long the database is away.

    Args:
        records_max: in one batch.
        poll_seconds: how long a poll waits for the first record of a batch.
    """

    def __init__(self, records_max: int, poll_seconds: float) -> None:
        self.records: list[Record] = []
        self._next: list[Record] = []
        self._records_max = records_max
        self._poll_seconds = poll_seconds
        self._since = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether no record is in hand."""
        return not (self.records or self._next)

    async def fill(self, subscription: Subscription) -> None:
        """If no batch is in hand, take the records that were polled meanwhile, or wait for new ones.

        Raises:
            MembershipEndedError: the client must be replaced, or the broker refuses it.
        """
        if self.records:
            return
        self.records, self._next = self._next, []
        if not self.records:
            self.records = await subscription.poll(self._records_max, self._poll_seconds)
        if self.records:
            self._since = time.perf_counter()
            failpoints.hit("consumer.polled")

    async def poll_next(self, subscription: Subscription) -> None:
        """Poll for the next batch without waiting, so that the group goes on counting this consumer in.

        While the database is away, a poll takes at most one record more.

        Raises:
            MembershipEndedError: the client must be replaced, or the broker refuses it.
        """
        records_max = 1 if self._next else self._records_max
        self._next += await subscription.poll(records_max, 0.0)

    def keep_due(self, held: Mapping[int, Position]) -> None:
        """Drop records of partitions that were revoked since, and records below the partition's position."""
        self.records = [
            record
            for record in self.records
            if held.get(record.position.partition) is record.position and record.offset >= record.position.next_offset
        ]

    def applied(self) -> None:
        """Drop the batch: it is committed."""
        self.records = []
        metrics.batch_seconds.observe(time.perf_counter() - self._since)

    def clear(self) -> None:
        """Drop everything: the database has the positions from which it is read again."""
        self.records, self._next = [], []
