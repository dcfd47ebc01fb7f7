"""Building the history anew beside the live one, and putting it in its place in one short transaction.

The order of the steps is what makes it safe. What the wallet database says is published is looked at before the
topic's ends are, so it lies before those ends; what the ledger alone knows comes last, when all that has an
event of its own is there. Whatever comes twice is dropped by (wallet, version), as always.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.epochs import Epoch, current_epoch
from common.kafka.topic_reader import TopicReader, open_topic
from common.postgres.engine import create_engine, operator_engine
from common.postgres.errors import DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, sqlstate
from common.progress import Progress, no_progress
from common.settings import PipelineSettings
from history_consumer.consumer.data_refusals import isolate_refused
from history_consumer.consumer.deduplication import SUPERSEDED
from history_consumer.consumer.queries import insert_dead_letters
from history_consumer.consumer.records import Record
from history_consumer.consumer.row_writes import ExistingRowsError, write_rows
from history_consumer.operations.dead_letter_retry import retry_dead_letters
from history_consumer.rebuild import ledger, queries, shadow
from history_consumer.rebuild.catalogue import TableDescription
from history_consumer.rebuild.errors import RebuildUnderWayError, TablesAlteredError, TopicUnfitError
from history_consumer.rebuild.events import Key, as_before, key_of, keys_of, record_of_payload
from history_consumer.rebuild.rebuilt import RebuildResult, Source
from history_consumer.rebuild.topic_records import topic_records

_SWAP_ATTEMPTS_MAX: Final = 120
_SWAP_PAUSE_SECONDS: Final = 1.0
_NOT_NOW: Final = {LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED}


async def rebuild(
    settings: PipelineSettings, source: Source = "auto", *, progress: Progress = no_progress
) -> RebuildResult:
    """Build the history anew while the read API goes on serving the old one, and swap the two.

    If it fails, wherever that is, the old history is as it was; the next rebuild starts from nothing.

    Args:
        settings: the databases, the topic and the group whose positions move.
        source: `auto` takes the topic if that has everything, else the wallet database and then the topic.
        progress: shows how far the reading is.

    Raises:
        CannotRebuildError: its subclasses say why; the history is as it was.
        TimeoutError: Kafka is away.
        sqlalchemy.exc.DBAPIError: a database is away, or readers hold the old tables for minutes.
    """
    async with (
        operator_engine(settings.history_database_url) as history,
        open_topic(settings, "walletctl-rebuild", expired="fail") as topic,
    ):
        async with _alone(history) as connection:
            run = _Rebuild(settings, connection, topic, progress)
            await run.build(source)
            await run.swap()
        # Those that the old history, or an older consumer, couldn't apply.
        async for done in retry_dead_letters(history):
            run.done.retried.add(done)
        async with history.begin() as connection:
            run.done.superseded = await queries.drop_superseded(connection, run.epoch)
        run.done.retried.left -= Counter({SUPERSEDED: run.done.superseded})
    return run.done


@asynccontextmanager
async def _alone(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Return the one connection that does it all: whoever loses it has lost the lock, too, and can't swap."""
    async with engine.connect() as connection:
        if not await connection.scalar(queries.LOCK):
            raise RebuildUnderWayError("another rebuild is under way: wait for it, nothing was done")
        await connection.execute(queries.PREPARE)
        await connection.commit()
        try:
            yield connection
        finally:
            # Its session has the lock and settings of its own: nobody else gets it.
            await connection.invalidate()


@asynccontextmanager
async def _snapshot(url: str) -> AsyncIterator[AsyncConnection]:
    """Open a transaction on the wallets whose statements all see the same."""
    engine = create_engine(
        url, "walletctl-rebuild", pool_size=1, statement_timeout_seconds=0, idle_in_transaction_timeout_seconds=0
    )
    try:
        async with engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            async with connection.begin():
                yield connection
    finally:
        await engine.dispose()


class _Rebuild:
    """One rebuild."""

    def __init__(
        self, settings: PipelineSettings, connection: AsyncConnection, topic: TopicReader, progress: Progress
    ) -> None:
        self.done = RebuildResult()
        self.epoch: Epoch
        self._settings = settings
        self._connection = connection
        self._topic = topic
        self._progress = progress
        self._group = {"consumer_group": settings.consumer_group, "topic": settings.kafka_topic}
        self._reached: dict[int, int] = {}
        self._published = 0
        self._revision = ""
        self._described: Mapping[str, TableDescription] = {}

    async def build(self, source: Source) -> None:
        """Fill the new tables."""
        self._described = await shadow.create(self._connection)
        self._revision = await self._ask(queries.REVISION)
        async with _snapshot(self._settings.database_url) as wallets:
            self.epoch = await current_epoch(wallets)
        lows = {partition: low for partition, (low, _) in (await self._topic.offsets()).items()}
        self._reached = {partition: max(low, self._epoch_begins(partition)) for partition, low in lows.items()}
        self.done.why = "asked for" if source == "outbox" else await self._why_not_topic(lows, source)
        if not self.done.why:
            await self._from_topic()
            if missing := await self._missing():
                self.done.why = f"the topic hasn't got {missing:,} versions that were published"
        if self.done.why and source == "topic":
            await shadow.drop(self._connection)
            raise TopicUnfitError(f"{self.done.why}: rebuild with --from outbox")
        if self.done.why:
            await self._from_wallets()
        self.done.missing = await self._missing()
        await shadow.analyze(self._connection)

    async def swap(self) -> None:
        """Put the new tables in their place; while somebody reads the old ones for long, try again."""
        for attempt in range(1, _SWAP_ATTEMPTS_MAX + 1):
            await self._read_on()
            try:
                await self._swap_once()
            except DBAPIError as error:
                if sqlstate(error) not in _NOT_NOW or attempt == _SWAP_ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(_SWAP_PAUSE_SECONDS)
            else:
                return

    async def _why_not_topic(self, lows: Mapping[int, int], source: Source) -> str:
        """Return what speaks against the topic alone, or nothing."""
        if not lows:
            return f"there is no topic {self._topic.name}"
        for partition, low in lows.items():
            if low:
                return f"partition {partition} of {self._topic.name} begins at offset {low:,}"
        if any(map(self._epoch_begins, lows)):
            return f"the wallet database was restored: {self._topic.name} tells of what no longer happened"
        stored = await self._every(queries.POSITIONS)
        # A recreated topic may have been filled again; who asks for it gets it, if nothing is missing.
        if source == "auto" and any(row.topic_id != self._topic.id for row in stored):
            return f"{self._topic.name} was recreated"
        return ""

    def _epoch_begins(self, partition: int) -> int:
        return self.epoch.begins_at(self._topic.id, partition)

    async def _from_topic(self) -> None:
        async with _snapshot(self._settings.database_url) as wallets:
            self._published = int(await queries.scalar(wallets, queries.PUBLISHED_VERSIONS))
        await self._read_on()

    async def _from_wallets(self) -> None:
        self.done.source = "outbox"
        async with _snapshot(self._settings.database_url) as wallets:
            self._published = int(await queries.scalar(wallets, queries.PUBLISHED_VERSIONS))
            await self._from_outbox(wallets)
            await self._read_on()
            if await self._missing():
                await self._from_ledger(wallets)

    async def _from_outbox(self, wallets: AsyncConnection) -> None:
        """Take every published row as the record that it was."""
        count = await queries.scalar(wallets, queries.PUBLISHED_COUNT)
        rows = queries.chunks(wallets, queries.PUBLISHED_EVENTS)
        with self._progress("reading the outbox", count) as advance:
            async with aclosing(rows):
                async for chunk in rows:
                    self.done.from_outbox += await self._write([record_of_payload(row.payload) for row in chunk])
                    advance(len(chunk))

    async def _from_ledger(self, wallets: AsyncConnection) -> None:
        """Make events of what has none: the outbox was pruned, and the topic no longer keeps it."""
        waiting: set[Key] = set()
        async for chunk in queries.chunks(wallets, queries.UNPUBLISHED_EVENTS):
            waiting.update(key for row in chunk for key in keys_of(record_of_payload(row.payload)))
        with self._progress("reading the ledger", await queries.scalar(wallets, queries.LEDGER_COUNT)) as advance:
            for query, tell in ((queries.CREATIONS, ledger.created), (queries.MOVEMENTS, ledger.moved)):
                async for chunk in queries.chunks(wallets, query):
                    told = [record_of_payload(tell(row).encode()) for row in chunk]
                    self.done.from_ledger += await self._write(await self._unknown(told, waiting))
                    advance(len(chunk))

    async def _unknown(self, told: Sequence[Record], waiting: set[Key]) -> list[Record]:
        """Return those of which the new history has nothing; as the old one has them, where that agrees."""
        keys = [key for record in told for key in keys_of(record)]
        async with self._connection.begin():
            known = await queries.at_keys(self._connection, queries.KNOWN_KEYS, keys)
            taken = waiting | {key_of(row) for row in known}
            missing = [record for record in told if keys_of(record) and taken.isdisjoint(keys_of(record))]
            keys = [key for record in missing for key in keys_of(record)]
            found = await queries.at_keys(self._connection, queries.OLD_EVENTS, keys)
        old = {key_of(row): row.event_data for row in found}
        return [as_before(record, old) for record in missing]

    async def _read_on(self) -> None:
        """Read the topic up to where it ends now."""
        ends = {partition: high for partition, (_, high) in (await self._topic.offsets()).items()}
        self._reached = await self._read(ends)

    async def _read(self, ends: Mapping[int, int]) -> dict[int, int]:
        """Read the topic up to these ends; return what is reached."""
        count = sum(max(0, end - self._reached[partition]) for partition, end in ends.items())
        chunks = self._topic.messages(self._reached, ends)
        with self._progress("reading the topic", count) as advance:
            async with aclosing(chunks):
                async for messages in chunks:
                    records = topic_records(messages, self._topic.id, self.epoch.number)
                    if any(record.is_ahead for record in records):
                        raise TopicUnfitError(
                            f"{self._topic.name} has events of a source epoch after {self.epoch.number}, in which the "
                            "wallet database was when this began: if that was restored, walletctl restore begin, and "
                            "then start again"
                        )
                    await self._write(records)
                    self.done.records += len(records)
                    advance(len(records))
        return {partition: max(begin, ends.get(partition, 0)) for partition, begin in self._reached.items()}

    async def _write(self, records: Sequence[Record]) -> int:
        """Write records into the new tables, as the consumer writes into its own; return how many rows were new."""
        count = 0

        async def write_all(some: Sequence[Record]) -> None:
            nonlocal count
            try:
                count += await self._write_once(some, optimistic=True)
            except ExistingRowsError:
                count += await self._write_once(some, optimistic=False)

        await isolate_refused(records, write_all)
        return count

    async def _write_once(self, records: Sequence[Record], *, optimistic: bool) -> int:
        connection = self._connection
        async with connection.begin_nested() if connection.in_transaction() else connection.begin():
            result = await write_rows(connection, records, optimistic=optimistic, into="_rebuild")
            # What came from the wallet database has no place in the topic, and isn't a record of it.
            letters = [letter for letter in result.dead_letters if letter.record.position.topic_id]
            if letters:
                await insert_dead_letters(connection, self._topic.name, letters, "_rebuild")
        return len(result.rows)

    async def _swap_once(self) -> None:
        """Stop the consumer by its positions, read up to them, put the new tables in place, move the positions.

        Readers wait only from the lock on the tables to the commit. The consumer finds its positions where it
        left them, or moved, and then joins anew.
        """
        async with self._connection.begin():
            await shadow.keep_vacuum_out(self._connection)
            stored = {row.partition: row for row in await self._every(queries.LOCK_POSITIONS)}
            offsets = await self._topic.offsets()
            if await self._topic.is_recreated():
                raise TopicUnfitError(f"{self._topic.name} was recreated meanwhile: start again")
            ends = {
                partition: min(high, stored[partition].next_offset)
                for partition, (_, high) in offsets.items()
                if partition in stored and stored[partition].topic_id == self._topic.id
            }
            reached = await self._read(ends)
            await shadow.lock_live(self._connection)
            if await queries.scalar(self._connection, queries.REVISION) != self._revision:
                raise TopicUnfitError("the schema was migrated meanwhile: start again")
            if await shadow.describe(self._connection) != self._described:
                raise TablesAlteredError("the history's tables were altered meanwhile: start again")
            (figures,) = await queries.every(self._connection, queries.REBUILT)
            await shadow.swap(self._connection)
            await queries.set_positions(self._connection, self._group, self._topic.id, self.epoch.number, reached)
        self.done.rows, self.done.wallets, self.done.positions = figures.rows, figures.wallets, reached

    async def _missing(self) -> int:
        """Return how many rows fewer there are than versions that were published."""
        async with self._connection.begin():
            (figures,) = await queries.every(self._connection, queries.REBUILT)
        return max(0, self._published - int(figures.rows))

    async def _ask(self, query: Any) -> Any:
        async with self._connection.begin():
            return await queries.scalar(self._connection, query)

    async def _every(self, query: Any) -> Sequence[Row[Any]]:
        connection = self._connection
        async with connection.begin_nested() if connection.in_transaction() else connection.begin():
            return await queries.every(connection, query, **self._group)
