"""The consumer: poll, apply, remember.

What is polled stays in hand until it is applied, however long the database is away; every step polls, so that
the group goes on counting this consumer in.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common import failpoints
from common.events import FIRST_SOURCE_EPOCH
from common.kafka import describe_topic, end_offsets, group_members
from common.worker import FAILURE_PAUSES, Health, TemporaryError
from history_consumer import metrics, queries
from history_consumer.applying import PartitionTakenOverError, Target, apply, moves_of, singly_if_refused
from history_consumer.failures import database_errors, kafka_errors
from history_consumer.positions import Assignment, Position
from history_consumer.records import Record
from history_consumer.settings import ConsumerSettings
from history_consumer.sorting import VERSION_CONFLICT, Sorted
from history_consumer.standstill import Standstill
from history_consumer.subscription import Subscription, recreated, restored

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
        self._settings = settings
        self._engine = engine
        self._health = health
        self._target = Target(settings.consumer_group, settings.kafka_topic)
        self._subscription: Subscription | None = None
        self._batch: list[Record] = []
        self._batch_since = 0.0
        # Polled while the batch is written.
        self._next_batch: list[Record] = []
        self._topic_id = ""
        self._standstill = Standstill()
        # Why the last membership ended, how many in a row have ended before they worked, and when to join again.
        self._refusal = ""
        self._refusals = 0
        self._join_at = 0.0
        # Why the broker answered no look.
        self._unanswered = ""
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
            self.report()

    async def _run_once(self) -> int:
        if (wait_seconds := self._join_at - time.monotonic()) > 0:
            await asyncio.sleep(min(wait_seconds, self._settings.consumer_poll_seconds))
            return 0
        subscription = await self._subscribed()
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
            await self.close()
            self._refusal = str(error)
            self._refusals += 1
            self._join_at = time.monotonic() + FAILURE_PAUSES.after(self._refusals)
            raise TemporaryError("kafka", error) from error
        if subscription.works:
            self._refusal = ""
            if time.monotonic() > self._join_at + FAILURE_PAUSES.longest_seconds:
                self._refusals = 0
        return count

    @property
    def assignment(self) -> Assignment:
        """What the present membership was given; nothing, while there is none."""
        return Assignment() if self._subscription is None else self._subscription.assignment

    def report(self) -> None:
        """Tell `/ready` and the metrics where the present membership is, or why there is none."""
        metrics.partitions_held.set(len(self.assignment.held))
        metrics.partitions_halted.set(len(self.assignment.halted))
        state = "not joined yet" if self._subscription is None else self._subscription.state()
        if self._subscription is None or not self._subscription.works:
            state = self._refusal or state
        self._health.checks["kafka"] = self._unanswered or state

    async def look_at_topic(self) -> int:
        """Ask the broker for the topic's id; the next step halts what was read from another one.

        Returns:
            How many partitions it has.

        Raises:
            TemporaryError: the broker is away, or the topic isn't there.
        """
        servers, topic = self._settings.kafka_bootstrap_servers, self._settings.kafka_topic
        with self._looking():
            self._topic_id, partition_count = await describe_topic(servers, topic)
        return partition_count

    async def look_at_ends(self, partition_count: int) -> dict[int, int]:
        """Ask the broker where the partitions end; if those that are read stand still, the next step joins anew.

        Returns:
            The offset behind the last record, by partition.

        Raises:
            TemporaryError: the broker is away.
        """
        subscription = self._subscription
        offsets = {position.partition: position.next_offset for position in self.assignment.held.values()}
        servers, topic = self._settings.kafka_bootstrap_servers, self._settings.kafka_topic
        with self._looking():
            ends = await end_offsets(servers, topic, partition_count)
        still = self._standstill.look(offsets, ends, time.monotonic(), idle=not (self._batch or self._next_batch))
        if still and subscription is not None:
            metrics.standstills.inc()
            log.error("partitions_stand_still", at={number: f"{offsets[number]} of {ends[number]}" for number in still})
            some = ", ".join(map(str, still))
            subscription.useless = f"nothing comes from partitions {some}, though the broker has more"
        return ends

    async def look_at_group(self) -> None:
        """Ask the broker whether a membership that was given nothing is a spare.

        Raises:
            TemporaryError: the broker is away, or denies it.
        """
        subscription = self._subscription
        if subscription is not None and subscription.may_be_spare:
            with self._looking():
                members = await group_members(self._settings.kafka_bootstrap_servers, self._settings.consumer_group)
            subscription.note_members(members)

    async def note_positions(self, asked: Mapping[int, Position], stored: Sequence[Position]) -> None:
        """Take halted partitions up again whose stored position is another one by now: an operator acted.

        Args:
            asked: where these stood when they were halted.
            stored: where the database says that they stand.
        """
        now = {position.partition: astuple(position) for position in stored}
        moved = [then for partition, then in asked.items() if now.get(partition) != astuple(then)]
        if moved and self._subscription is not None:
            await self._subscription.release(moved)

    async def close(self) -> None:
        """Leave the group. What is in hand is forgotten: the database has the position."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close(self._settings.consumer_leave_seconds)
        self._batch, self._next_batch, self._in_doubt, self._moved = [], [], {}, set()
        self.report()

    async def _subscribed(self) -> Subscription:
        if self._subscription is None:
            await self.look_at_topic()
            with kafka_errors(self._settings.consumer_group, self._settings.kafka_topic):
                self._subscription = Subscription(self._settings)
        return self._subscription

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
        await self.look_at_topic()
        with database_errors():
            async with asyncio.timeout(self._settings.consumer_transaction_timeout_seconds):
                async with self._engine.begin() as connection:
                    positions = await queries.ensure_positions(
                        connection, self._target.consumer_group, self._target.topic, self._topic_id, pending
                    )
        self._health.ok("database")
        readable = []
        for position in positions:
            if position.topic_id != self._topic_id:
                await subscription.halt(position, recreated(self._target.topic, position, self._topic_id))
            elif position.source_epoch < FIRST_SOURCE_EPOCH:
                await subscription.halt(position, restored(self._target.topic))
            else:
                readable.append(position)
        await subscription.read(readable)
        log.info("partitions_read", offsets={position.partition: position.next_offset for position in readable})

    async def _halt_recreated(self, subscription: Subscription) -> None:
        for position in subscription.assignment.held.values():
            if position.topic_id != self._topic_id:
                why = recreated(self._target.topic, position, self._topic_id)
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
                refusal = await singly_if_refused(self._batch, self._write)
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
                result = await apply(self._engine, self._target, records)
        self._in_doubt = {}
        for position, next_offset in moves:
            position.next_offset = next_offset
        _count(records, result)

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

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Note whether the broker answers; turn its errors into TemporaryError."""
        try:
            with kafka_errors(self._settings.consumer_group, self._settings.kafka_topic):
                yield
        except TemporaryError as error:
            self._unanswered = str(error)
            raise
        self._unanswered = ""
        if self._subscription is not None:
            self._subscription.note_answer()


class _StartOverError(Exception):
    """This membership is of no use any more."""


def _is_due(record: Record, held: Mapping[int, Position]) -> bool:
    """Whether the record is still ours, and not behind us."""
    return held.get(record.partition) is record.position and record.offset >= record.position.next_offset


def _count(records: Sequence[Record], result: Sorted) -> None:
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
