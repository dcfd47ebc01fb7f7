"""The wallet database's source epoch, and the topic's ends when it began."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.events.headers import FIRST_SOURCE_EPOCH

CURRENT_EPOCH: Final = text("""
    SELECT epoch, topic_id, topic_ends FROM wallet.source_epochs ORDER BY epoch DESC LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class Epoch:
    """The newest row of `source_epochs`.

    Args:
        number: 1 for a database that was never restored.
        topic_id: the id of the topic when the epoch began; empty for the first epoch.
        topic_ends: the offset that the topic's next record would get then, by partition.
    """

    number: int
    topic_id: str
    topic_ends: Mapping[int, int]

    def begins_at(self, topic_id: str, partition: int) -> int:
        """Return the partition's first offset that no older epoch published."""
        return self.topic_ends.get(partition, 0) if topic_id == self.topic_id else 0

    def supersedes(self, source_epoch: int, topic_id: str, partition: int, offset: int) -> bool:
        """Return whether a record of an event that the database does not have was published before the restore."""
        return FIRST_SOURCE_EPOCH <= source_epoch < self.number and offset < self.begins_at(topic_id, partition)


async def current_epoch(connection: AsyncConnection) -> Epoch:
    """Return the wallet database's present epoch."""
    epoch, topic_id, ends = (await connection.execute(CURRENT_EPOCH)).one()
    return Epoch(epoch, topic_id, {int(partition): end for partition, end in ends.items()})
