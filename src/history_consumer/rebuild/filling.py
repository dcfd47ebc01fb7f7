"""Filling the new tables from the topic, the outbox and the ledger."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing

from sqlalchemy.ext.asyncio import AsyncConnection

from common.epochs import Epoch
from common.kafka.topic_reader import TopicReader
from common.postgres.reading import fetch_one, fetch_value, stream_chunks
from common.progress import Progress
from history_consumer.consumer.data_refusals import isolate_refused
from history_consumer.consumer.queries import insert_dead_letters
from history_consumer.consumer.records import Record
from history_consumer.consumer.row_writes import ExistingRowsError, write_rows
from history_consumer.rebuild import ledger, queries
from history_consumer.rebuild.errors import TopicUnfitError
from history_consumer.rebuild.events import Key, as_before, key_of, keys_of, record_of_payload
from history_consumer.rebuild.result import RebuildResult
from history_consumer.rebuild.topic_records import topic_records


class Filling:
    """Fills the new tables, source by source. An event that two sources have is written once, by (wallet, version).

    Args:
        connection: to the history's database. Only `read_topic` may run in the caller's transaction.
        topic: the topic to read.
        epoch: the wallet database's epoch.
        lows: the first offset that the topic keeps, by partition.
        result: counts what each source gave.
        progress: shows how far the reading is.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        topic: TopicReader,
        epoch: Epoch,
        lows: Mapping[int, int],
        result: RebuildResult,
        progress: Progress,
    ) -> None:
        self.connection = connection
        self.topic = topic
        self.epoch = epoch
        self.lows = lows
        self.result = result
        self._progress = progress
        self._reached = {partition: max(low, epoch.begins_at(topic.id, partition)) for partition, low in lows.items()}

    async def missing(self, published: int) -> int:
        """Return how many of so many published versions the new tables do not have."""
        async with self.connection.begin():
            figures = await fetch_one(self.connection, queries.REBUILT)
        return max(0, published - int(figures["rows"]))

    async def read_outbox(self, wallets: AsyncConnection) -> None:
        """Write every published row of the outbox as the record that it became."""
        count = await fetch_value(wallets, queries.PUBLISHED_COUNT)
        chunks = stream_chunks(wallets, queries.PUBLISHED_EVENTS)
        with self._progress("reading the outbox", count) as advance:
            async with aclosing(chunks):
                async for rows in chunks:
                    self.result.from_outbox += await self._write([record_of_payload(row.payload) for row in rows])
                    advance(len(rows))

    async def read_on(self) -> None:
        """Read the topic from where the last call ended to its present end."""
        ends = {partition: high for partition, (_, high) in (await self.topic.offsets()).items()}
        self._reached = await self.read_topic(ends)

    async def read_topic(self, ends: Mapping[int, int]) -> dict[int, int]:
        """Read the topic from where `read_on` ended; return the offset that was reached, by partition.

        The next call begins at the same offset again: the caller's transaction may be rolled back.

        Raises:
            TopicUnfitError: a record belongs to a newer epoch than the wallet database had.
            TimeoutError: the broker went away.
        """
        count = sum(max(0, end - self._reached[partition]) for partition, end in ends.items())
        chunks = self.topic.messages(self._reached, ends)
        with self._progress("reading the topic", count) as advance:
            async with aclosing(chunks):
                async for messages in chunks:
                    records = topic_records(messages, self.topic.id, self.epoch.number)
                    self._check_epoch(records)
                    await self._write(records)
                    self.result.records += len(records)
                    advance(len(records))
        return {partition: max(begin, ends.get(partition, 0)) for partition, begin in self._reached.items()}

    def _check_epoch(self, records: Sequence[Record]) -> None:
        if any(record.is_ahead for record in records):
            raise TopicUnfitError(
                f"{self.topic.name} has events of a source epoch after {self.epoch.number}, the wallet database's "
                "epoch when the rebuild began. If the wallet database was restored, run walletctl restore begin. Then "
                "start again"
            )

    async def read_ledger(self, wallets: AsyncConnection) -> None:
        """Make events for versions that still have none: the outbox pruned the row, and the topic lost the record."""
        waiting: set[Key] = set()
        async for rows in stream_chunks(wallets, queries.UNPUBLISHED_EVENTS):
            waiting.update(key for row in rows for key in keys_of(record_of_payload(row.payload)))
        with self._progress("reading the ledger", await fetch_value(wallets, queries.LEDGER_COUNT)) as advance:
            for query, event_of in ((queries.CREATIONS, ledger.created), (queries.MOVEMENTS, ledger.moved)):
                async for rows in stream_chunks(wallets, query):
                    records = [record_of_payload(event_of(row).encode()) for row in rows]
                    self.result.from_ledger += await self._write(await self._unknown(records, waiting))
                    advance(len(rows))

    async def _unknown(self, records: Sequence[Record], waiting: set[Key]) -> list[Record]:
        """Return the records whose versions are neither in the new tables nor waiting to be published.

        Where the old history agrees with the ledger, its event is returned, with its bytes and its id.
        """
        keys = [key for record in records for key in keys_of(record)]
        async with self.connection.begin():
            known = await queries.at_keys(self.connection, queries.KNOWN_KEYS, keys)
            taken = waiting | {key_of(row) for row in known}
            missing = [record for record in records if keys_of(record) and taken.isdisjoint(keys_of(record))]
            keys = [key for record in missing for key in keys_of(record)]
            found = await queries.at_keys(self.connection, queries.OLD_EVENTS, keys)
        old = {key_of(row): row.event_data for row in found}
        return [as_before(record, old) for record in missing]

    async def _write(self, records: Sequence[Record]) -> int:
        """Write records into the new tables, as the consumer writes its own; return how many rows were new."""
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
        connection = self.connection
        async with connection.begin_nested() if connection.in_transaction() else connection.begin():
            result = await write_rows(connection, records, optimistic=optimistic, into="_rebuild")
            # A row of the wallet database has no place in the topic, and is no record that could be a dead letter.
            letters = [letter for letter in result.dead_letters if letter.record.position.topic_id]
            if letters:
                await insert_dead_letters(connection, self.topic.name, letters, "_rebuild")
        return len(result.rows)
