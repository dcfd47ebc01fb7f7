"""Looking at the servers from time to time, since an idle consumer wouldn't notice what happened to them."""

import math
import time
from typing import Final

import structlog
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.worker import Health
from history_consumer import gap_queries, metrics
from history_consumer.consumer import queries
from history_consumer.consumer.batch_writes import Target
from history_consumer.consumer.consumer import HistoryConsumer
from history_consumer.consumer.failures import database_deadline
from history_consumer.consumer.partitions import release_moved
from history_consumer.gap_queries import GAP_OLD_SECONDS

log = structlog.get_logger()

_PING_TIMEOUT_SECONDS: Final = 10.0
# Looking for gaps reads the progress of all wallets, some 0.1 s a million. Where that takes longer, it takes a
# fiftieth of the time at most.
_LOOK_SECONDS_SHORT: Final = 0.1
_LOOK_REST: Final = 50
_GAP_OLD_SECONDS_MAX: Final = 1e9
"""Older than anything here."""


class Monitor:
    """Tells `/ready` what answers, and the consumer what it wouldn't notice: another topic, moved positions."""

    def __init__(self, consumer: HistoryConsumer, engine: AsyncEngine, target: Target, health: Health) -> None:
        self._consumer = consumer
        self._engine = engine
        self._target = target
        self._health = health
        # Where the topic ended at some look, when that was, and the last such moment up to which all has been read.
        self._goal: dict[int, int] = {}
        self._goal_set_at = 0.0
        self._read_up_to = -math.inf
        self._logged: tuple[int, tuple[str, ...], int] = (0, (), 0)
        self._alarms_at = 0.0

    async def run_once(self) -> int:
        """Look once; return 0, so that a pause follows.

        Raises:
            TemporaryError: a server is away.
        """
        async with database_deadline(_PING_TIMEOUT_SECONDS), self._engine.connect() as connection:
            await queries.ping(connection)
            await self._look_at_halted(connection)
            await self._look_for_alarms(connection)
        self._health.ok("database")
        asked_at = time.monotonic()
        membership = self._consumer.membership
        ends = await self._consumer.look_at_ends(await membership.look_at_topic())
        # A topic that ends earlier than before has lost records, or is another one: that goal may never be reached.
        if not self._goal or any(ends.get(partition, 0) < end for partition, end in self._goal.items()):
            self._goal, self._goal_set_at = ends, asked_at
        await membership.look_at_group()
        membership.report()
        return 0

    async def _gap_old_seconds(self, connection: AsyncConnection) -> float:
        """Return for how long a gap must have stood open, so that what it misses can't be in records not read yet.

        Whatever the topic had at some moment has been read: gaps from before it won't close by reading on. While the
        group catches up, that moment is long ago, or there was none since this consumer started.
        """
        if self._goal:
            group, topic = self._target.consumer_group, self._target.topic
            stored = await queries.read_positions(connection, group, topic, self._goal)
            reached = {position.partition: position.next_offset for position in stored}
            if all(reached.get(partition, 0) >= end for partition, end in self._goal.items()):
                self._read_up_to, self._goal = self._goal_set_at, {}
        return max(GAP_OLD_SECONDS, min(time.monotonic() - self._read_up_to, _GAP_OLD_SECONDS_MAX))

    async def _look_at_halted(self, connection: AsyncConnection) -> None:
        """Find out whether an operator moved the positions of partitions that stand still."""
        subscription = self._consumer.membership.subscription
        if subscription is not None and (halted := subscription.assignment.halted_at):
            group, topic = self._target.consumer_group, self._target.topic
            stored = await queries.read_positions(connection, group, topic, halted)
            await release_moved(subscription, halted, stored)

    async def _look_for_alarms(self, connection: AsyncConnection) -> None:
        started = time.monotonic()
        if started < self._alarms_at:
            return
        self._tell(await gap_queries.alarms(connection, await self._gap_old_seconds(connection)))
        ended = time.monotonic()
        if ended - started > _LOOK_SECONDS_SHORT:
            self._alarms_at = ended + _LOOK_REST * (ended - started)

    def _tell(self, alarms: RowMapping) -> None:
        """Set the metrics, and log what changed since the last look."""
        metrics.old_gaps.set(alarms["old_gaps"])
        metrics.open_conflicts.set(alarms["conflicts"])
        gaps, wallets, conflicts = self._logged
        self._logged = (alarms["old_gaps"], tuple(alarms["wallets"]), alarms["conflicts"])
        if self._logged[:2] != (gaps, wallets):
            level = log.error if alarms["old_gaps"] else log.info
            level("history_gaps", older_than_seconds=GAP_OLD_SECONDS, wallets=alarms["old_gaps"], some=self._logged[1])
        if alarms["conflicts"] != conflicts:
            level = log.error if alarms["conflicts"] else log.info
            level("history_conflicts", dead_letters=alarms["conflicts"])
