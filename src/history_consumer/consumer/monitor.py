"""Checking the servers from time to time: an idle consumer would not notice that one has gone away."""

import time
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.worker import Health, database_deadline
from history_consumer.consumer import queries
from history_consumer.consumer.alarms import HistoryAlarms
from history_consumer.consumer.batch_writes import Target
from history_consumer.consumer.consumer import HistoryConsumer
from history_consumer.consumer.partitions import release_moved

_DATABASE_SECONDS_MAX: Final = 10.0


class Monitor:
    """Reports the servers' health to `/ready`, and finds a recreated topic, a stall, moved positions and alarms.

    Args:
        consumer: whose membership is checked.
        engine: of the history's database.
        target: the consumer's group and topic.
        health: notes `database` and `kafka`.
    """

    def __init__(self, consumer: HistoryConsumer, engine: AsyncEngine, target: Target, health: Health) -> None:
        self._consumer = consumer
        self._engine = engine
        self._target = target
        self._health = health
        self._alarms = HistoryAlarms(target)

    async def run_once(self) -> int:
        """Check once; return 0, so that a pause follows.

        Raises:
            TemporaryError: a server is away.
        """
        async with database_deadline(_DATABASE_SECONDS_MAX), self._engine.connect() as connection:
            await queries.ping(connection)
            await self._release_moved(connection)
            await self._alarms.check(connection)
        self._health.ok("database")
        asked_at = time.monotonic()
        group_member = self._consumer.group_member
        partition_count = await group_member.look_at_topic()
        self._alarms.note_ends(await self._consumer.look_at_ends(partition_count), asked_at)
        await group_member.look_at_group(partition_count)
        group_member.report()
        return 0

    async def _release_moved(self, connection: AsyncConnection) -> None:
        """Start halted partitions again whose position an operator has moved."""
        subscription = self._consumer.group_member.subscription
        if subscription is not None and (halted := subscription.assignment.halted_at):
            group, topic = self._target.consumer_group, self._target.topic
            stored = await queries.read_positions(connection, group, topic, halted)
            await release_moved(subscription, halted, stored)
