"""The history's alarms: gaps that stay open, and versions that two events claim."""

import math
import time
from collections.abc import Mapping
from typing import Final

import structlog
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from history_consumer import gap_queries, metrics
from history_consumer.consumer import queries
from history_consumer.consumer.batch_writes import Target
from history_consumer.gap_queries import GAP_OLD_SECONDS

log = structlog.get_logger()

# A check reads the progress of all wallets, some 0.1 s a million. A check that takes longer is followed by a rest, so
# that checks take at most a fiftieth of the time.
_SHORT_CHECK_SECONDS: Final = 0.1
_REST_FACTOR: Final = 50
_GAP_OLD_SECONDS_MAX: Final = 1e9
"""Older than any gap."""


class HistoryAlarms:
    """Sets the gauges of the alarms, and logs an alarm when it begins, changes and ends.

    Args:
        target: whose positions tell how far the topic has been read.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        # The topic's ends that the group is to reach, when the broker named them, and when it named those reached last.
        self._goal: Mapping[int, int] = {}
        self._goal_set_at = 0.0
        self._read_up_to = -math.inf
        self._logged: tuple[int, tuple[str, ...], int] = (0, (), 0)
        self._check_at = 0.0

    async def check(self, connection: AsyncConnection) -> None:
        """Look for alarms, unless an earlier check took so long that it is too early for this one."""
        started = time.monotonic()
        if started < self._check_at:
            return
        self._report(await gap_queries.alarms(connection, await self._gap_old_seconds(connection)))
        ended = time.monotonic()
        if ended - started > _SHORT_CHECK_SECONDS:
            self._check_at = ended + _REST_FACTOR * (ended - started)

    def note_ends(self, ends: Mapping[int, int], asked_at: float) -> None:
        """Note where the topic's partitions end, and when the broker was asked, by the monotonic clock.

        The group is to reach these ends if it has reached the ones before. It may never reach ends of a topic that
        is shorter now: that topic has lost records or was recreated.
        """
        if not self._goal or any(ends.get(partition, 0) < end for partition, end in self._goal.items()):
            self._goal, self._goal_set_at = ends, asked_at

    async def _gap_old_seconds(self, connection: AsyncConnection) -> float:
        """Return how long a gap must have been open, so that no unread record can close it.

        The group has read all that the topic had at some moment. A gap from before that moment stays open. While the
        group catches up, that moment is long ago; just after this consumer's start it is unknown.
        """
        if self._goal:
            group, topic = self._target.consumer_group, self._target.topic
            stored = await queries.read_positions(connection, group, topic, self._goal)
            reached = {position.partition: position.next_offset for position in stored}
            if all(reached.get(partition, 0) >= end for partition, end in self._goal.items()):
                self._read_up_to, self._goal = self._goal_set_at, {}
        return max(GAP_OLD_SECONDS, min(time.monotonic() - self._read_up_to, _GAP_OLD_SECONDS_MAX))

    def _report(self, alarms: RowMapping) -> None:
        """Set the gauges, and log what has changed since the last check."""
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
