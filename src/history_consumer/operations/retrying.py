"""Taking dead letters through the projection again, as the consumer does, when the cause may be gone."""

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
from history_consumer.consumer.records import Poison, Record, stored_record
from history_consumer.consumer.retries import OPERATOR_RETRIES
from history_consumer.consumer.row_writes import write_rows
from history_consumer.projection import HistoryRow

_CHUNK_LETTERS_MAX: Final = 500


@dataclass
class RetryResult:
    """What became of dead letters.

    Args:
        count: how many were tried.
        applied: how many gave history rows that were missing.
        duplicates: how many gave nothing that the history hadn't.
        left: how many are dead letters still, by their reason now.
    """

    count: int = 0
    applied: int = 0
    duplicates: int = 0
    left: Counter[str] = field(default_factory=Counter)

    def add(self, other: "RetryResult") -> None:
        """Add what became of others."""
        self.count += other.count
        self.applied += other.applied
        self.duplicates += other.duplicates
        self.left += other.left

    @property
    def conflicts(self) -> int:
        """Return how many claim a (wallet, version) that another event has: an alarm, which no retry heals."""
        return self.left[VERSION_CONFLICT]


async def retry_dead_letters(
    engine: AsyncEngine, *, dead_letter_id: int | None = None, reason: str | None = None
) -> AsyncIterator[RetryResult]:
    """Apply dead letters that can be applied by now, in their order; the others stay, with the reason as it is now.

    A letter goes in the transaction in which its rows come, and no position moves. Only those that are there
    at the start are tried.

    Args:
        engine: of the history's database.
        dead_letter_id: only this one.
        reason: only those put aside for this reason.

    Yields:
        What became of each chunk, committed.
    """
    selection = {"id": dead_letter_id, "reason": reason}
    async with engine.connect() as connection:
        last = await dead_letter_queries.last(connection)
    after_id = 0
    while True:
        async with engine.connect() as connection:
            letters = await dead_letter_queries.read(connection, selection, after_id, last, _CHUNK_LETTERS_MAX)
        if not letters:
            return
        after_id = letters[-1]["id"]
        yield await _retry_chunk(engine, letters)


async def _retry_chunk(engine: AsyncEngine, letters: Sequence[RowMapping]) -> RetryResult:
    retried = RetryResult()
    # A record's position is its own here, and stays when the record turns out to be poison.
    letter_ids: dict[Position, int] = {}
    records: list[Record] = []
    for letter in letters:
        records.append(_record(letter))
        letter_ids[records[-1].position] = letter["id"]

    async def write(some: Sequence[Record]) -> None:
        by_letter = {letter_ids[record.position]: record for record in some}
        retried.add(await OPERATOR_RETRIES.run(lambda _: _retry_once(engine, by_letter)))

    await isolate_refused(records, write)
    return retried


async def _retry_once(engine: AsyncEngine, records: Mapping[int, Record]) -> RetryResult:
    async with engine.begin() as connection:
        # Another operator may have retried some of them meanwhile.
        there = await dead_letter_queries.lock(connection, records)
        tried = {letter_id: records[letter_id] for letter_id in there}
        classified = await write_rows(connection, list(tried.values()), optimistic=False)
        why = {id(letter.record): letter.poison for letter in classified.dead_letters}
        left = {letter_id: why[id(record)] for letter_id, record in tried.items() if id(record) in why}
        gone = [letter_id for letter_id in tried if letter_id not in left]
        await dead_letter_queries.delete(connection, gone)
        await dead_letter_queries.explain(connection, left)
    new = {id(row) for row in classified.rows}
    applied = sum(any(id(row) in new for row in _rows(tried[letter_id])) for letter_id in gone)
    reasons = Counter(poison.reason for poison in left.values())
    return RetryResult(len(tried), applied, len(gone) - applied, reasons)


def _record(letter: RowMapping) -> Record:
    headers = [(name, value.encode()) for name, value in letter["headers"] if isinstance(value, str)]
    position = Position(letter["partition"], letter["offset"], letter["topic_id"], letter["source_epoch"])
    return stored_record(letter["value"], position, key=letter["key"], headers=headers)


def _rows(record: Record) -> Sequence[HistoryRow]:
    return () if isinstance(record.content, Poison) else record.content
