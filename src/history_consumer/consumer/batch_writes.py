"""Writing a batch: its rows and its positions in one transaction, so that each record takes effect exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common import failpoints
from history_consumer import metrics
from history_consumer.consumer import queries
from history_consumer.consumer.deduplication import ClassifiedBatch
from history_consumer.consumer.failures import MembershipEndedError
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import Record
from history_consumer.consumer.row_writes import write_rows
from history_consumer.consumer.transaction_retries import CONSUMER_RETRIES

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Target:
    """Whose positions move: the consumer group and the topic."""

    consumer_group: str
    topic: str


def moves_of(records: Sequence[Record]) -> list[tuple[Position, int]]:
    """Return the positions that these records move, by partition, each with the offset to which it moves."""
    last = {record.position.partition: record for record in records}
    return [(record.position, record.offset + 1) for _, record in sorted(last.items())]


async def write_batch(engine: AsyncEngine, target: Target, records: Sequence[Record]) -> ClassifiedBatch:
    """Write the records' rows and dead letters and move the positions past them, in one transaction.

    The first attempt takes every event for new. If the history has one, it is rolled back, and the next attempt reads
    what the history has.

    Args:
        engine: of the history's database.
        target: whose positions move.
        records: for each partition in the order of offsets, none below its position.

    Raises:
        MembershipEndedError: another consumer moved one of the positions; nothing was written.
        sqlalchemy.exc.DBAPIError: the database refuses or is away; the outcome is unknown.
    """

    async def transaction(attempt: int) -> ClassifiedBatch:
        async with engine.begin() as connection:
            await _move_positions(connection, target, records)
            classified = await write_rows(connection, records, optimistic=attempt == 1)
            if classified.dead_letters:
                await queries.insert_dead_letters(connection, target.topic, classified.dead_letters)
            failpoints.hit("consumer.applied_not_committed")
        return classified

    return await CONSUMER_RETRIES.run(transaction)


async def _move_positions(connection: AsyncConnection, target: Target, records: Sequence[Record]) -> None:
    moves = moves_of(records)
    moved = await queries.move_positions(connection, target.consumer_group, target.topic, moves)
    if len(moved) < len(moves):
        lost = [str(position.partition) for position, _ in moves if position.partition not in moved]
        why = f"another consumer moved partition {', '.join(lost)}"
        metrics.takeovers.inc()
        log.warning("partition_taken_over", error=why)
        raise MembershipEndedError(why)
