"""The consumer as a member of the group: its present membership, or why it has none."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from common.kafka.groups import partitions_by_member
from common.kafka.topics import describe_topic, end_offsets
from common.pauses import FAILURE_PAUSES
from common.worker import Health, TemporaryError
from history_consumer import metrics
from history_consumer.consumer.failures import MembershipEndedError, kafka_errors
from history_consumer.consumer.positions import Assignment
from history_consumer.consumer.stall_detector import StallDetector
from history_consumer.consumer.subscription import Subscription
from history_consumer.settings import ConsumerSettings

log = structlog.get_logger()


class GroupMember:
    """Joins the group, and joins again after a membership has ended, with growing pauses until one works.

    Args:
        settings: of this consumer.
        health: notes `kafka`.
    """

    def __init__(self, settings: ConsumerSettings, health: Health) -> None:
        self.subscription: Subscription | None = None
        self.topic_id = ""
        """The topic's id, when the broker was last asked."""
        self._settings = settings
        self._health = health
        self._stall_detector = StallDetector()
        # Why the last membership ended, how many in a row ended before they worked, and when the next one begins.
        self._ended_because = ""
        self._ended_count = 0
        self._join_at = 0.0
        # Why the broker did not answer the last question; empty if it did.
        self._unanswered = ""

    @property
    def assignment(self) -> Assignment:
        """The partitions that the group gave the present membership; none, while there is no membership."""
        return Assignment() if self.subscription is None else self.subscription.assignment

    async def joined(self) -> Subscription | None:
        """Return the present membership or a new one; None, after a short wait, if it is too early to join again.

        Raises:
            TemporaryError: the broker is away, or the topic isn't there.
            MembershipEndedError: the client is stalled.
        """
        if (wait_seconds := self._join_at - time.monotonic()) > 0:
            await asyncio.sleep(min(wait_seconds, self._settings.consumer_poll_seconds))
            return None
        if self.subscription is None:
            await self.look_at_topic()
            with kafka_errors(self._settings.consumer_group, self._settings.kafka_topic):
                self.subscription = Subscription(self._settings)
        if self.subscription.stall:
            raise MembershipEndedError(self.subscription.stall)
        return self.subscription

    def note_step(self) -> None:
        """Note that a step succeeded: if the membership works, forget why earlier ones ended."""
        if self.subscription is not None and self.subscription.works:
            self._ended_because = ""
            if time.monotonic() > self._join_at + FAILURE_PAUSES.longest_seconds:
                self._ended_count = 0

    async def end_membership(self, why: str) -> None:
        """Leave the group, because this membership is of no use; the next one begins after a pause."""
        await self.leave()
        self._ended_because = why
        self._ended_count += 1
        self._join_at = time.monotonic() + FAILURE_PAUSES.after(self._ended_count)

    async def leave(self) -> None:
        """Leave the group."""
        subscription, self.subscription = self.subscription, None
        if subscription is not None:
            await subscription.close(self._settings.consumer_leave_seconds)
        self.report()

    def report(self) -> None:
        """Report the state of the membership to `/ready` and the metrics, or why there is none."""
        metrics.partitions_held.set(len(self.assignment.held))
        metrics.partitions_halted.set(len(self.assignment.halted))
        state = "not joined yet" if self.subscription is None else self.subscription.state()
        if self.subscription is None or not self.subscription.works:
            state = self._ended_because or state
        wrong = [self._unanswered, state if state != "ok" else ""]
        self._health.checks["kafka"] = "; ".join(filter(None, wrong)) or "ok"

    async def look_at_topic(self) -> int:
        """Ask the broker for the topic's id; the next step halts partitions that were read from another topic.

        Returns:
            How many partitions the topic has.

        Raises:
            TemporaryError: the broker is away, or the topic isn't there.
        """
        connection, topic = self._settings.kafka, self._settings.kafka_topic
        with self._looking():
            self.topic_id, partition_count = await describe_topic(connection, topic)
        return partition_count

    async def look_at_ends(self, partition_count: int, *, idle: bool) -> dict[int, int]:
        """Ask the broker where the partitions end; if the client is stalled, the next step joins again with a new one.

        Args:
            partition_count: how many the topic has.
            idle: whether no record is in hand.

        Returns:
            The offset that the next record will get, by partition.

        Raises:
            TemporaryError: the broker is away.
        """
        subscription = self.subscription
        offsets = {position.partition: position.next_offset for position in self.assignment.held.values()}
        connection, topic = self._settings.kafka, self._settings.kafka_topic
        with self._looking():
            ends = await end_offsets(connection, topic, partition_count)
        stalled = self._stall_detector.look(offsets, ends, time.monotonic(), idle=idle)
        if stalled and subscription is not None:
            metrics.stalls.inc()
            at = {partition: f"{offsets[partition]} of {ends[partition]}" for partition in stalled}
            log.error("partitions_stand_still", at=at)
            numbers = ", ".join(map(str, stalled))
            subscription.stall = f"nothing comes from partitions {numbers}, though the broker has more"
        return ends

    async def look_at_group(self, partition_count: int) -> None:
        """Ask the broker whether a membership without partitions is a spare: other members have them all.

        Args:
            partition_count: how many the topic has.

        Raises:
            TemporaryError: the broker is away, or denies the question.
        """
        subscription = self.subscription
        if subscription is not None and subscription.may_be_spare:
            with self._looking():
                members = await partitions_by_member(
                    self._settings.kafka, self._settings.consumer_group, self._settings.kafka_topic
                )
            subscription.note_members(members, partition_count)

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
        if self.subscription is not None:
            self.subscription.note_answer()
