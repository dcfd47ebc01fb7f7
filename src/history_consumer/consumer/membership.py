"""A consumer's part in the group: the present membership, why there is none, and what the broker says meanwhile."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from common.kafka.groups import group_members
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


class Membership:
    """Joins the group, and again when a membership has ended, with growing pauses while none of them works.

    Args:
        settings: of this consumer.
        health: notes `kafka`.
    """

    def __init__(self, settings: ConsumerSettings, health: Health) -> None:
        self.subscription: Subscription | None = None
        self.topic_id = ""
        """Of the topic at the last look."""
        self._settings = settings
        self._health = health
        self._stall_detector = StallDetector()
        # Why the last one ended, how many in a row have ended before they worked, and when to join again.
        self._refusal = ""
        self._refusals = 0
        self._join_at = 0.0
        # Why the broker answered no look.
        self._unanswered = ""

    @property
    def assignment(self) -> Assignment:
        """What the present membership was given; nothing, while there is none."""
        return Assignment() if self.subscription is None else self.subscription.assignment

    async def joined(self) -> Subscription | None:
        """Return the present membership, or a new one; None, after a short wait, while it is too early for that.

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
        """A step of the consumer went well: if the membership works, forget what was wrong with those before."""
        if self.subscription is not None and self.subscription.works:
            self._refusal = ""
            if time.monotonic() > self._join_at + FAILURE_PAUSES.longest_seconds:
                self._refusals = 0

    async def give_up(self, why: str) -> None:
        """Leave the group, as this membership is of no use; the next one has to wait."""
        await self.leave()
        self._refusal = why
        self._refusals += 1
        self._join_at = time.monotonic() + FAILURE_PAUSES.after(self._refusals)

    async def leave(self) -> None:
        """Leave the group."""
        subscription, self.subscription = self.subscription, None
        if subscription is not None:
            await subscription.close(self._settings.consumer_leave_seconds)
        self.report()

    def report(self) -> None:
        """Tell `/ready` and the metrics where the present membership is, or why there is none."""
        metrics.partitions_held.set(len(self.assignment.held))
        metrics.partitions_halted.set(len(self.assignment.halted))
        state = "not joined yet" if self.subscription is None else self.subscription.state()
        if self.subscription is None or not self.subscription.works:
            state = self._refusal or state
        wrong = [self._unanswered, state if state != "ok" else ""]
        self._health.checks["kafka"] = "; ".join(filter(None, wrong)) or "ok"

    async def look_at_topic(self) -> int:
        """Ask the broker for the topic's id; the next step halts what was read from another one.

        Returns:
            How many partitions it has.

        Raises:
            TemporaryError: the broker is away, or the topic isn't there.
        """
        servers, topic = self._settings.kafka_bootstrap_servers, self._settings.kafka_topic
        with self._looking():
            self.topic_id, partition_count = await describe_topic(servers, topic)
        return partition_count

    async def look_at_ends(self, partition_count: int, *, idle: bool) -> dict[int, int]:
        """Ask the broker where the partitions end; if those that are read stand still, the next step joins anew.

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
        servers, topic = self._settings.kafka_bootstrap_servers, self._settings.kafka_topic
        with self._looking():
            ends = await end_offsets(servers, topic, partition_count)
        still = self._stall_detector.look(offsets, ends, time.monotonic(), idle=idle)
        if still and subscription is not None:
            metrics.standstills.inc()
            log.error("partitions_stand_still", at={number: f"{offsets[number]} of {ends[number]}" for number in still})
            some = ", ".join(map(str, still))
            subscription.stall = f"nothing comes from partitions {some}, though the broker has more"
        return ends

    async def look_at_group(self) -> None:
        """Ask the broker whether a membership that was given nothing is a spare.

        Raises:
            TemporaryError: the broker is away, or denies it.
        """
        subscription = self.subscription
        if subscription is not None and subscription.may_be_spare:
            with self._looking():
                members = await group_members(self._settings.kafka_bootstrap_servers, self._settings.consumer_group)
            subscription.note_members(members)

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
