"""The wallet database's epoch: from where on the topic tells of what the database knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.events import FIRST_SOURCE_EPOCH

CURRENT_EPOCH: Final = text("""
    SELECT epoch, topic_id, topic_ends FROM wallet.source_epochs ORDER BY epoch DESC LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class Epoch:
    """The newest row of `source_epochs`.

    Args:
        number: 1 for a database that was never restored.
        topic_id: of the topic as it was when the epoch began; empty for the first epoch.
        topic_ends: by partition, where that ended by then.
    """

    number: int
    topic_id: str
    topic_ends: Mapping[int, int]

    def begins_at(self, topic_id: str | None, partition: int) -> int:
        """Return the offset behind the last record of the partition that an older epoch may have published."""
        return self.topic_ends.get(partition, 0) if topic_id == self.topic_id else 0

    def supersedes(self, source_epoch: int, topic_id: str | None, partition: int, offset: int) -> bool:
        """Whether a record there, of an event that the database hasn't got, was published before the restore."""
        return FIRST_SOURCE_EPOCH <= source_epoch < self.number and offset < self.begins_at(topic_id, partition)


async def current_epoch(connection: AsyncConnection) -> Epoch:
    """Return the epoch that the wallet database is in."""
    epoch, topic_id, ends = (await connection.execute(CURRENT_EPOCH)).one()
    return Epoch(epoch, topic_id, {int(partition): end for partition, end in ends.items()})
