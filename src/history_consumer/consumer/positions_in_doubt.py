"""The positions whose transaction has an unknown outcome: the connection was lost before the reply to COMMIT."""

from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from history_consumer.consumer import queries
from history_consumer.consumer.batch_writes import Target
from history_consumer.consumer.positions import Position


class PositionsInDoubt:
    """Where the positions stand if the last transaction was committed."""

    def __init__(self) -> None:
        self._next_offsets: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._next_offsets)

    def begin(self, moves: Sequence[tuple[Position, int]]) -> None:
        """A transaction begins that moves these positions; they are in doubt until its outcome is known."""
        self._next_offsets = {position.partition: next_offset for position, next_offset in moves}

    def clear(self) -> None:
        """The outcome is known, or no longer of interest."""
        self._next_offsets = {}

    async def resolve(self, connection: AsyncConnection, target: Target, held: Mapping[int, Position]) -> None:
        """Read whether the transaction was committed, and move the held positions if it was.

        Args:
            connection: to the history's database.
            target: whose positions.
            held: the positions under which partitions are read.
        """
        stored = await queries.read_positions(connection, target.consumer_group, target.topic, self._next_offsets)
        for found in stored:
            position = held.get(found.partition)
            was_committed = found.next_offset == self._next_offsets[found.partition]
            if position and found.topic_id == position.topic_id and was_committed:
                position.next_offset = found.next_offset
        self.clear()
