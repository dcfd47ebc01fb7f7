"""Applying dead letters again, as the consumer applies records, when the cause may be gone."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from history_consumer import dead_letter_queries
from history_consumer.consumer.data_refusals import isolate_refused
from history_consumer.consumer.deduplication import VERSION_CONFLICT
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import Record, stored_record
from history_consumer.consumer.row_writes import write_rows
from history_consumer.consumer.transaction_retries import OPERATOR_RETRIES

_CHUNK_LETTERS_MAX: Final = 500


@dataclass
class RetryResult:
    """The result of a retry of dead letters.

    Args:
        count: how many were tried.
        applied: how many gave history rows that were missing.
        duplicates: how many gave only rows that the history has.
        left: how many are still dead letters, by their reason now.
    """

    count: int = 0
    applied: int = 0
    duplicates: int = 0
    left: Counter[str] = field(default_factory=Counter)

    def add(self, other: "RetryResult") -> None:
        """Add another result to this one."""
        self.count += other.count
        self.applied += other.applied
        self.duplicates += other.duplicates
        self.left += other.left

    @property
    def conflicts(self) -> int:
        """The dead letters whose (wallet, version) another event has: an alarm, which a retry does not end."""
        return self.left[VERSION_CONFLICT]


async def retry_dead_letters(
    engine: AsyncEngine, *, dead_letter_id: int | None = None, reason: str | None = None
) -> AsyncIterator[RetryResult]:
    """Apply the dead letters that can be applied by now, in their order; the rest stay, each with its reason now.

    One transaction writes a dead letter's rows and deletes it. No position moves. Dead letters that come after the
    start are not tried.

    Args:
        engine: of the history's database.
        dead_letter_id: only this one.
        reason: only those with this reason.

    Yields:
        The result of each chunk, which is committed.
    """
    selection = {"id": dead_letter_id, "reason": reason}
    async with engine.connect() as connection:
        last_id = await dead_letter_queries.last_id(connection)
    after_id = 0
    while True:
        async with engine.connect() as connection:
            letters = await dead_letter_queries.read(connection, selection, after_id, last_id, _CHUNK_LETTERS_MAX)
        if not letters:
            return
        after_id = letters[-1]["id"]
        yield await _retry_chunk(engine, letters)


async def _retry_chunk(engine: AsyncEngine, letters: Sequence[RowMapping]) -> RetryResult:
    result = RetryResult()
    records = [_record(letter) for letter in letters]
    # Each record has a position of its own, which `isolate_refused` keeps when it makes the record a dead letter.
    ids = {record.position: letter["id"] for record, letter in zip(records, letters, strict=True)}

    async def write(some: Sequence[Record]) -> None:
        by_id = {ids[record.position]: record for record in some}
        result.add(await OPERATOR_RETRIES.run(lambda _: _apply(engine, by_id)))

    await isolate_refused(records, write)
    return result


async def _apply(engine: AsyncEngine, records: Mapping[int, Record]) -> RetryResult:
    """Apply dead letters in one transaction; `records` has them by the dead letter's id."""
    async with engine.begin() as connection:
        # Another operator may have retried or pruned some of them.
        locked = await dead_letter_queries.lock(connection, records)
        tried = {letter_id: records[letter_id] for letter_id in locked}
        classified = await write_rows(connection, list(tried.values()), optimistic=False)
        poison_of = {letter.record.position: letter.poison for letter in classified.dead_letters}
        left = {
            letter_id: poison_of[record.position] for letter_id, record in tried.items() if record.position in poison_of
        }
        gone = [letter_id for letter_id in tried if letter_id not in left]
        await dead_letter_queries.delete(connection, gone)
        await dead_letter_queries.update_reasons(connection, left)
    new = {id(row) for row in classified.rows}
    applied = sum(any(id(row) in new for row in tried[letter_id].rows) for letter_id in gone)
    reasons = Counter(poison.reason for poison in left.values())
    return RetryResult(len(tried), applied, len(gone) - applied, reasons)


def _record(letter: RowMapping) -> Record:
    headers = [(name, value.encode()) for name, value in letter["headers"] if isinstance(value, str)]
    position = Position(letter["partition"], letter["offset"], letter["topic_id"], letter["source_epoch"])
    return stored_record(letter["value"], position, key=letter["key"], headers=headers)
