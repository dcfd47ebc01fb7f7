"""The consumer: poll, apply, remember.

What is polled stays in hand until it is applied, however long the database is away; every step polls, so that
the group goes on counting this consumer in.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common import failpoints
from common.events import FIRST_SOURCE_EPOCH
from common.worker import Health, TemporaryError
from history_consumer import metrics
from history_consumer.consumer import queries
from history_consumer.consumer.batch_writes import PartitionTakenOverError, Target, moves_of, write_batch
from history_consumer.consumer.data_refusals import isolate_refused
from history_consumer.consumer.deduplication import VERSION_CONFLICT, Classified
from history_consumer.consumer.failures import database_errors, recreated, restored
from history_consumer.consumer.membership import Membership
from history_consumer.consumer.positions import Assignment, Position
from history_consumer.consumer.records import Record
from history_consumer.consumer.subscription import Subscription
from history_consumer.settings import ConsumerSettings

log = structlog.get_logger()

# Told after each batch, the broker did twice as much at 400 events a second.
_NOTE_INTERVAL_SECONDS: Final = 1.0


class HistoryConsumer:
    """Turns the topic's records into history rows, each exactly once.

    Args:
        settings: of this consumer.
        engine: of the history's database; one connection is enough.
        health: notes `database` and `kafka`.
    """

    def __init__(self, settings: ConsumerSettings, engine: AsyncEngine, health: Health) -> None:
        self.membership = Membership(settings, health)
        self._settings = settings
        self._engine = engine
        self._health = health
        self._target = Target(settings.consumer_group, settings.kafka_topic)
        self._batch: list[Record] = []
        self._batch_since = 0.0
        # Polled while the batch is written.
        self._next_batch: list[Record] = []
        # Where the positions stand if the transaction whose outcome isn't known was committed.
        self._in_doubt: dict[int, int] = {}
        # Moved since Kafka was told.
        self._moved: set[int] = set()
        self._note_at = 0.0

    async def run_once(self) -> int:
        """Poll, apply, remember; return how many records were applied.

        Raises:
            TemporaryError: a server is away, or another consumer took over; what is in hand stays in hand, or
                is read again from the position that the database has.
        """
        try:
            return await self._run_once()
        finally:
            self.membership.report()

    async def _run_once(self) -> int:
        subscription = await self.membership.joined()
        if subscription is None:
            return 0
        try:
            if subscription.useless:
                raise _StartOverError(subscription.useless)
            if not self._batch:
                await self._poll_batch(subscription)
            await self._take_up(subscription)
            await self._halt_recreated(subscription)
            await self._halt_ahead(subscription)
            count = await self._apply_and_poll(subscription)
            await self._note_progress(subscription)
        except _StartOverError as error:
            await self.membership.give_up(str(error))
            self._forget()
            raise TemporaryError("kafka", error) from error
        self.membership.note_step()
        return count

    @property
    def assignment(self) -> Assignment:
        """What the present membership was given; nothing, while there is none."""
        return self.membership.assignment

    async def look_at_ends(self, partition_count: int) -> dict[int, int]:
        """Ask the broker where the partitions end; see `Membership.look_at_ends`."""
        idle = not (self._batch or self._next_batch)
        return await self.membership.look_at_ends(partition_count, idle=idle)

    async def note_positions(self, asked: Mapping[int, Position], stored: Sequence[Position]) -> None:
        """Take halted partitions up again whose stored position is another one by now: an operator acted.

        Args:
            asked: where these stood when they were halted.
            stored: where the database says that they stand.
        """
        now = {position.partition: astuple(position) for position in stored}
        moved = [then for partition, then in asked.items() if now.get(partition) != astuple(then)]
        if moved and self.membership.subscription is not None:
            await self.membership.subscription.release(moved)

    async def close(self) -> None:
        """Leave the group. What is in hand is forgotten: the database has the position."""
        await self.membership.leave()
        self._forget()

    def _forget(self) -> None:
        self._batch, self._next_batch, self._in_doubt, self._moved = [], [], {}, set()

    async def _poll_batch(self, subscription: Subscription) -> None:
        """Take what was polled meanwhile in hand, or wait for what comes."""
        self._batch, self._next_batch = self._next_batch, []
        if not self._batch:
            self._batch = await self._poll(
                subscription, self._settings.consumer_batch_records, self._settings.consumer_poll_seconds
            )
        if self._batch:
            self._batch_since = time.perf_counter()
            failpoints.hit("consumer.polled")

    async def _apply_and_poll(self, subscription: Subscription) -> int:
        """Apply what is in hand, and meanwhile poll for the next batch: the one waits for PostgreSQL, the other reads.

        Even where the database is away the group wants to be polled; then at most one record comes with it.
        """
        records_max = 1 if self._next_batch else self._settings.consumer_batch_records
        count, polled = await asyncio.gather(
            self._apply(subscription), self._poll(subscription, records_max, 0.0), return_exceptions=True
        )
        if isinstance(polled, BaseException):
            raise polled
        self._next_batch += polled
        if isinstance(count, BaseException):
            raise count
        return count

    async def _poll(self, subscription: Subscription, records_max: int, wait_seconds: float) -> list[Record]:
        try:
            return await subscription.poll(records_max, wait_seconds)
        except TemporaryError as error:
            raise _StartOverError(str(error)) from error

    async def _take_up(self, subscription: Subscription) -> None:
        """Look up the positions of partitions that the group gave, and begin to read them."""
        pending = sorted(self.assignment.pending)
        if not pending:
            return
        await self.membership.look_at_topic()
        with database_errors():
            async with asyncio.timeout(self._settings.consumer_transaction_timeout_seconds):
                async with self._engine.begin() as connection:
                    positions = await queries.ensure_positions(
                        connection, self._target.consumer_group, self._target.topic, self.membership.topic_id, pending
                    )
        self._health.ok("database")
        readable = []
        for position in positions:
            if position.topic_id != self.membership.topic_id:
                await subscription.halt(position, recreated(self._target.topic, position, self.membership.topic_id))
            elif position.source_epoch < FIRST_SOURCE_EPOCH:
                await subscription.halt(position, restored(self._target.topic))
            else:
                readable.append(position)
        await subscription.read(readable)
        log.info("partitions_read", offsets={position.partition: position.next_offset for position in readable})

    async def _halt_recreated(self, subscription: Subscription) -> None:
        for position in subscription.assignment.held.values():
            if position.topic_id != self.membership.topic_id:
                why = recreated(self._target.topic, position, self.membership.topic_id)
                await subscription.halt(position, why)

    async def _halt_ahead(self, subscription: Subscription) -> None:
        """Stop before events of an epoch with which the history isn't in line: versions come again in it.

        Epochs only rise along a partition, so its last event tells of the batch. (A relay on a database that was given
        up may break this; whatever that brings goes with the rebuild that the next batch asks for.)
        """
        last = {record.partition: record for record in self._batch if record.is_event}
        for record in last.values():
            if record.is_ahead and subscription.assignment.held.get(record.partition) is record.position:
                await subscription.halt(record.position, restored(self._target.topic))

    async def _apply(self, subscription: Subscription) -> int:
        if self._in_doubt:
            await self._settle_doubt()
        with subscription.writing():
            held = subscription.assignment.held
            self._batch = [record for record in self._batch if _is_due(record, held)]
            if not self._batch:
                return 0
            count = len(self._batch)
            try:
                refusal = await isolate_refused(self._batch, self._write)
            except PartitionTakenOverError as error:
                metrics.takeovers.inc()
                log.warning("partition_taken_over", error=str(error))
                raise _StartOverError(str(error)) from error
        if refusal is not None:
            log.warning("batch_refused_by_database", records=count, error=str(refusal.orig))
        failpoints.hit("consumer.committed_not_noted")
        self._moved |= {record.partition for record in self._batch}
        self._batch = []
        metrics.batch_seconds.observe(time.perf_counter() - self._batch_since)
        self._health.ok("database")
        return count

    async def _note_progress(self, subscription: Subscription) -> None:
        if not self._moved or time.monotonic() < self._note_at:
            return
        self._note_at = time.monotonic() + _NOTE_INTERVAL_SECONDS
        held = subscription.assignment.held
        positions = [position for partition, position in held.items() if partition in self._moved]
        self._moved.clear()
        if positions:
            await subscription.note_progress(positions)

    async def _write(self, records: Sequence[Record]) -> None:
        moves = moves_of(records)
        self._in_doubt = {position.partition: next_offset for position, next_offset in moves}
        with database_errors():
            async with asyncio.timeout(self._settings.consumer_transaction_timeout_seconds):
                classified = await write_batch(self._engine, self._target, records)
        self._in_doubt = {}
        for position, next_offset in moves:
            position.next_offset = next_offset
        _count(records, classified)

    async def _settle_doubt(self) -> None:
        """Find out whether the transaction that ended with the connection was committed."""
        with database_errors():
            async with asyncio.timeout(self._settings.consumer_transaction_timeout_seconds):
                async with self._engine.connect() as connection:
                    stored = await queries.read_positions(
                        connection, self._target.consumer_group, self._target.topic, self._in_doubt
                    )
        for found in stored:
            held = self.assignment.held.get(found.partition)
            if held and found.topic_id == held.topic_id and found.next_offset == self._in_doubt[found.partition]:
                held.next_offset = found.next_offset
        self._in_doubt = {}


class _StartOverError(Exception):
    """This membership is of no use any more."""


def _is_due(record: Record, held: Mapping[int, Position]) -> bool:
    """Whether the record is still ours, and not behind us."""
    return held.get(record.partition) is record.position and record.offset >= record.position.next_offset


def _count(records: Sequence[Record], result: Classified) -> None:
    """Count what was committed, and log what somebody should see."""
    metrics.records.inc(sum(record.content != () for record in records))
    metrics.rows.labels("new").inc(len(result.rows))
    metrics.rows.labels("duplicate").inc(result.duplicate_count)
    if result.rows:
        oldest = min(row.created_at for row in result.rows)
        metrics.lag_seconds.observe(max(0.0, (datetime.now(UTC) - oldest).total_seconds()))
    for letter in result.dead_letters:
        metrics.dead_letters.labels(letter.poison.reason).inc()
        event = "record_put_aside"
        if letter.poison.reason == VERSION_CONFLICT:
            metrics.conflicts.inc()
            event = "version_conflict"
        log.error(event, reason=letter.poison.reason, detail=letter.poison.detail, **letter.record.log_fields())
