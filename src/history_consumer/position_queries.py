"""The positions that the consumer has stored, as commands read them."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_POSITIONS: Final = """
    SELECT partition, next_offset, topic_id, source_epoch FROM history.processed_offsets
    WHERE consumer_group = :consumer_group AND topic = :topic ORDER BY partition
"""
POSITIONS: Final = text(_POSITIONS)
LOCK_POSITIONS: Final = text(f"{_POSITIONS} FOR UPDATE")


@dataclass(frozen=True, slots=True)
class StoredPosition:
    """The offset up to which the consumer has applied a partition, the topic's id, and the history's source epoch."""

    next_offset: int
    topic_id: str
    source_epoch: int


async def stored_positions(
    connection: AsyncConnection, consumer_group: str, topic: str, *, lock: bool = False
) -> dict[int, StoredPosition]:
    """Return the group's positions in the topic, by partition.

    Args:
        connection: to the history's database.
        consumer_group: the group that reads the topic.
        topic: the topic's name.
        lock: keep consumers from moving the positions until the transaction ends.
    """
    parameters = {"consumer_group": consumer_group, "topic": topic}
    rows = await connection.execute(LOCK_POSITIONS if lock else POSITIONS, parameters)
    return {partition: StoredPosition(*position) for partition, *position in rows}
