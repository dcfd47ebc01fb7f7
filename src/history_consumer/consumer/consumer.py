"""The consumer's step: poll, apply, remember. Every step polls, so that the group goes on counting this consumer in."""

import asyncio
from collections.abc import Sequence

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common import failpoints
from common.worker import Health, database_deadline
from history_consumer.consumer import partitions, queries
from history_consumer.consumer.batch_in_hand import BatchInHand
from history_consumer.consumer.batch_reports import report_batch
from history_consumer.consumer.batch_writes import Target, moves_of, write_batch
from history_consumer.consumer.data_refusals import isolate_refused
from history_consumer.consumer.failures import MembershipEndedError
from history_consumer.consumer.group_member import GroupMember
from history_consumer.consumer.offset_commits import OffsetCommits
from history_consumer.consumer.positions import Assignment
from history_consumer.consumer.positions_in_doubt import PositionsInDoubt
from history_consumer.consumer.records import Record
from history_consumer.consumer.subscription import Subscription
from history_consumer.settings import ConsumerSettings

log = structlog.get_logger()


class HistoryConsumer:
    """Turns the topic's records into history rows, each exactly once.

    Args:
        settings: of this consumer.
        engine: of the history's database; one connection is enough.
        health: notes `database` and `kafka`.
    """

    def __init__(self, settings: ConsumerSettings, engine: AsyncEngine, health: Health) -> None:
        self.group_member = GroupMember(settings, health)
        self._engine = engine
        self._health = health
        self._target = Target(settings.consumer_group, settings.kafka_topic)
        self._transaction_seconds_max = settings.consumer_transaction_timeout_seconds
        self._batch = BatchInHand(settings.consumer_batch_records, settings.consumer_poll_seconds)
        self._in_doubt = PositionsInDoubt()
        self._commits = OffsetCommits()

    @property
    def assignment(self) -> Assignment:
        """The partitions that the group gave the present membership; none, while there is no membership."""
        return self.group_member.assignment

    async def run_once(self) -> int:
        """Poll, apply, remember; return how many records were applied.

        Raises:
            TemporaryError: a server is away. The batch stays in hand.
            MembershipEndedError: the broker refuses this membership, or another consumer has a partition. What is in
                hand is dropped, and the next membership reads it again from the positions in the database.
        """
        try:
            subscription = await self.group_member.joined()
            if subscription is None:
                return 0
            await self._batch.fill(subscription)
            await self._start_or_halt_partitions(subscription)
            count = await self._apply_and_poll(subscription)
            await self._commits.commit_due(subscription)
        except MembershipEndedError as error:
            await self.group_member.end_membership(error.why)
            self._forget()
            raise
        else:
            self.group_member.note_step()
            return count
        finally:
            self.group_member.report()

    async def look_at_ends(self, partition_count: int) -> dict[int, int]:
        """Ask the broker where the partitions end; see `GroupMember.look_at_ends`."""
        return await self.group_member.look_at_ends(partition_count, idle=self._batch.is_empty)

    async def close(self) -> None:
        """Leave the group, and drop what is in hand: the database has the positions."""
        await self.group_member.leave()
        self._forget()

    def _forget(self) -> None:
        self._batch.clear()
        self._in_doubt.clear()
        self._commits.clear()

    async def _start_or_halt_partitions(self, subscription: Subscription) -> None:
        topic, pending = self._target.topic, subscription.assignment.pending
        if pending:
            await self.group_member.look_at_topic()
            topic_id = self.group_member.topic_id
            async with database_deadline(self._transaction_seconds_max), self._engine.begin() as connection:
                positions = await queries.ensure_positions(
                    connection, self._target.consumer_group, topic, topic_id, pending
                )
            self._health.ok("database")
            await partitions.start(subscription, topic, topic_id, positions)
        await partitions.halt_recreated(subscription, topic, self.group_member.topic_id)
        await partitions.halt_ahead(subscription, topic, self._batch.records)

    async def _apply_and_poll(self, subscription: Subscription) -> int:
        """Apply the batch while the next one is polled: the one waits for PostgreSQL, the other for Kafka."""
        polling = asyncio.create_task(self._batch.poll_next(subscription))
        try:
            return await self._apply(subscription)
        finally:
            await polling

    async def _apply(self, subscription: Subscription) -> int:
        if self._in_doubt:
            async with database_deadline(self._transaction_seconds_max), self._engine.connect() as connection:
                await self._in_doubt.resolve(connection, self._target, subscription.assignment.held)
        with subscription.writing():
            self._batch.keep_due(subscription.assignment.held)
            records = self._batch.records
            if not records:
                return 0
            refusal = await isolate_refused(records, self._write)
        if refusal is not None:
            log.warning("batch_refused_by_database", records=len(records), error=str(refusal.orig))
        failpoints.hit("consumer.committed_not_noted")
        self._commits.note({record.partition for record in records})
        self._batch.applied()
        self._health.ok("database")
        return len(records)

    async def _write(self, records: Sequence[Record]) -> None:
        moves = moves_of(records)
        self._in_doubt.begin(moves)
        async with database_deadline(self._transaction_seconds_max):
            classified = await write_batch(self._engine, self._target, records)
        self._in_doubt.clear()
        for position, next_offset in moves:
            position.next_offset = next_offset
        report_batch(records, classified)
