"""Applying a batch: its rows and its position in one transaction, so that each takes effect exactly once."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from common import failpoints
from common.postgres.errors import may_succeed_again, sqlstate
from history_consumer import metrics
from history_consumer.consumer import queries
from history_consumer.consumer.deduplication import Classified, ExistingEvents, classify, classify_as_new
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import Poison, Record
from history_consumer.projection import storable

REFUSED_BY_DATABASE: Final = "refused-by-database"

_ATTEMPTS_MAX: Final = 8

# Fewer are written sooner by one statement; COPY and its progress take three round trips.
_COPIED_ROWS_MIN: Final = 100

# Class 22 data exception, 23 integrity constraint violation, 54 program limit exceeded (PostgreSQL manual,
# appendix A): what is wrong with these is the data, and it will be tomorrow.
_DATA_PREFIXES: Final = ("22", "23", "54")


class PartitionTakenOverError(Exception):
    """A position isn't where this consumer left it: another one has the partition."""


class RowsThereError(Exception):
    """Some of the rows were there already; nothing was known of them."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whose positions move: the consumer group and the topic."""

    consumer_group: str
    topic: str


def moves_of(records: Sequence[Record]) -> list[tuple[Position, int]]:
    """Return the positions that these records move, by partition, and to which offset."""
    ends: dict[int, tuple[Position, int]] = {}
    for record in records:
        ends[record.partition] = (record.position, record.offset + 1)
    return [ends[partition] for partition in sorted(ends)]


def is_refusal(error: BaseException) -> bool:
    """Whether the database refuses the data itself."""
    return (sqlstate(error) or "").startswith(_DATA_PREFIXES)


def refused(record: Record, error: DBAPIError) -> Record:
    """Return the record as poison, since the database refuses it."""
    poison = Poison(REFUSED_BY_DATABASE, storable(f"{sqlstate(error)}: {error.orig}"))
    return replace(record, content=poison)


async def apply(engine: AsyncEngine, target: Target, records: Sequence[Record]) -> Classified:
    """Write what the records come to and move the positions behind them, in one transaction.

    The first attempt takes for granted that everything is new. If something wasn't, it is rolled back and the
    next one looks at what the history has before it sorts the batch out.

    Args:
        engine: of the history's database.
        target: whose positions move.
        records: for each partition in the order of offsets, none below its position.

    Raises:
        PartitionTakenOverError: another consumer moved one of the positions; nothing was written.
        sqlalchemy.exc.DBAPIError: the database refuses or is away; nothing is known of the outcome.
    """
    look_first = False
    async for attempt in AsyncRetrying(
        retry=retry_if_exception(_worth_another_try),
        stop=stop_after_attempt(_ATTEMPTS_MAX),
        wait=wait_random_exponential(multiplier=0.01, max=0.5),
        before_sleep=_count_retry,
        reraise=True,
    ):
        with attempt:
            try:
                return await _apply_once(engine, target, records, look_first=look_first)
            except RowsThereError:
                look_first = True
                raise
    raise AssertionError("tenacity returns or raises")


async def write(
    connection: AsyncConnection, records: Sequence[Record], *, look_first: bool, into: queries.Into = ""
) -> Classified:
    """Write what the records come to, in the caller's transaction; what is to be put aside is only returned.

    Args:
        connection: in a transaction.
        records: for each partition in the order of offsets.
        look_first: at what the history has; without, everything is taken to be new that is of its epoch.
        into: which tables.

    Raises:
        RowsThereError: something was there already; roll back, and look first.
    """
    look_first = look_first or any(record.is_foreign for record in records)
    result = classify(records, await _look(connection, records, into)) if look_first else classify_as_new(records)
    if not result.rows:
        return result
    if look_first or len(result.rows) < _COPIED_ROWS_MIN:
        if await queries.insert_rows(connection, result.rows, into) < len(result.rows):
            raise RowsThereError
        return result
    try:
        await queries.copy_rows(connection, result.rows, into)
    except DBAPIError as error:
        if is_refusal(error):
            # There already, or data that it doesn't take: the next attempt's statement tells.
            raise RowsThereError from error
        raise
    await queries.add_progress(connection, result.rows, into)
    return result


async def singly_if_refused(
    records: Sequence[Record], write_all: Callable[[Sequence[Record]], Awaitable[None]]
) -> DBAPIError | None:
    """Write the records together; if the database refuses, each alone, those that it refuses as poison.

    Returns what the database said when it refused them together.

    Args:
        records: what to write.
        write_all: writes some of them in one transaction.
    """
    try:
        await write_all(records)
    except DBAPIError as error:
        if not is_refusal(error):
            raise
        refusal = error
    else:
        return None
    for record in records:
        try:
            await write_all([record])
        except DBAPIError as error:
            if not is_refusal(error):
                raise
            await write_all([refused(record, error)])
    return refusal


async def _apply_once(
    engine: AsyncEngine, target: Target, records: Sequence[Record], *, look_first: bool
) -> Classified:
    moves = moves_of(records)
    async with engine.begin() as connection:
        moved = await queries.move_positions(connection, target.consumer_group, target.topic, moves)
        if len(moved) < len(moves):
            lost = [position.partition for position, _ in moves if position.partition not in moved]
            raise PartitionTakenOverError(f"another consumer moved partition {', '.join(map(str, lost))}")
        result = await write(connection, records, look_first=look_first)
        if result.dead_letters:
            await queries.insert_dead_letters(connection, target.topic, result.dead_letters)
        failpoints.hit("consumer.applied_not_committed")
    return result


async def _look(connection: AsyncConnection, records: Sequence[Record], into: queries.Into) -> ExistingEvents:
    rows = [row for record in records if not isinstance(record.content, Poison) for row in record.content]
    return await queries.read_existing(connection, rows, into)


def _worth_another_try(error: BaseException) -> bool:
    return isinstance(error, RowsThereError) or may_succeed_again(error)


def _count_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if error and not isinstance(error, RowsThereError):
        metrics.transaction_retries.labels(sqlstate(error)).inc()
