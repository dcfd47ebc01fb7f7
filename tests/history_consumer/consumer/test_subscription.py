"""The group's callbacks and the client's errors, while partitions are read and written."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from confluent_kafka import KafkaError, Message
from prometheus_client import REGISTRY
from structlog.testing import LogCapture

from history_consumer.consumer import client_thread
from history_consumer.consumer import subscription as subscriptions
from history_consumer.consumer.positions import Position
from history_consumer.consumer.subscription import Subscription
from history_consumer.settings import ConsumerSettings


class Member:
    """Stands in for librdkafka's consumer in the callbacks."""

    def incremental_assign(self, partitions: object) -> None:
        """Do nothing."""

    def incremental_unassign(self, partitions: object) -> None:
        """Do nothing."""

    def memberid(self) -> str:
        """Return this member's id."""
        return "self"


class EndlessConsumer:
    """Stands in for librdkafka's consumer, whose close waits for a broker that refuses its login."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.is_released = threading.Event()
        self.reports = 0
        self._config = config
        self._on_revoke: Any = None

    def subscribe(self, _: object, **callbacks: Any) -> None:
        """Take the callbacks of the group."""
        self._on_revoke = callbacks["on_revoke"]

    def close(self) -> None:
        """Go on reporting until the test ends."""
        refused = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error")
        while not self.is_released.wait(0.01):
            self._config["error_cb"](refused)
            self._config["on_commit"](refused, [])
            self._config["logger"].log(logging.ERROR, "%s [%s] %s", "FAIL", "client", "SASL authentication error")
            self._on_revoke(Member(), [])
            self.reports += 1


SETTINGS = ConsumerSettings(database_url="postgresql://nowhere/none", kafka_bootstrap_servers="127.0.0.1:1")


@pytest.fixture
async def subscription() -> AsyncIterator[Subscription]:
    subscription = Subscription(SETTINGS)
    yield subscription
    await subscription.close(5)


async def test_a_revoked_partition_is_kept_until_the_transaction_ends(
    subscription: Subscription,
) -> None:
    await read(subscription, Position(0, 5, "id"), Position(1, 5, "id"))
    revoked: Any = [Part(0)]
    giving_up = threading.Thread(target=subscription._on_revoke, args=(Member(), revoked))
    with subscription.writing():
        giving_up.start()
        giving_up.join(0.1)
        assert giving_up.is_alive()
        assert set(subscription.assignment.held) == {0, 1}
        subscription._on_lost(Member(), [Part(1)])  # type: ignore[arg-type,list-item]
        assert set(subscription.assignment.held) == {0}, "a lost partition is removed at once"
    giving_up.join(10)
    assert not subscription.assignment.held


async def test_a_partition_halts_only_if_the_topic_lacks_the_next_record(subscription: Subscription) -> None:
    await read(subscription, Position(0, 6, "id"), Position(1, 6, "id"))
    polled = subscription._stamped([_record(0, 6), _record(0, 7), _out_of_range(0, 8), _out_of_range(1, None)])
    assert [record.offset for record in polled] == [6, 7]
    assert sorted(subscription.assignment.halted) == [0, 1]
    assert not subscription.assignment.held


async def test_a_late_error_of_an_earlier_assignment_has_the_partition_read_again(subscription: Subscription) -> None:
    for late in (11, 5):
        position = Position(0, 6, "id")
        await read(subscription, position)
        assert subscription._stamped([_out_of_range(0, late), _record(0, 6)]) == []
        found = subscription.assignment
        assert (set(found.pending), dict(found.held), dict(found.halted)) == ({0}, {}, {})
    await read(subscription, position)
    assert [record.offset for record in subscription._stamped([_record(0, 6)])] == [6]


async def test_a_partition_that_is_not_assigned_is_neither_read_nor_halted(
    subscription: Subscription,
) -> None:
    kept, revoked = Position(0, 6, "id"), Position(1, 6, "id")
    await read(subscription, kept, revoked)
    gone: Any = [Part(1)]
    subscription._on_lost(Member(), gone)  # type: ignore[arg-type]
    await subscription.halt(revoked, "too late")
    await subscription.read([revoked, Position(2, 6, "id")])
    found = subscription.assignment
    assert (dict(found.held), dict(found.halted), set(found.pending)) == ({0: kept}, {}, set())


async def test_an_end_is_a_record_only_if_it_lies_behind_the_last_polled_offset(subscription: Subscription) -> None:
    position = Position(0, 6, "id")
    await read(subscription, position)
    assert subscription._stamped([_end(0, 6), _end(1, 9)]) == []
    polled = subscription._stamped([_record(0, 6), _end(0, 7), _end(0, 9), _record(0, 9), _end(0, 10), _end(0, 8)])
    assert [(record.offset, record.is_event, record.content == ()) for record in polled] == [
        (6, False, False),
        (8, False, True),
        (9, False, False),
    ]


@pytest.mark.parametrize(
    ("members", "is_spare"),
    [
        ({"self": set(), "other": {0}, "another": {1, 2}}, True),
        ({"self": set(), "other": {0, 1}}, False),
        ({"self": {0}, "other": {1, 2}}, False),
        ({"self": set(), "other": set()}, False),
        ({"other": {0, 1, 2}}, False),
    ],
)
async def test_a_member_is_a_spare_only_if_other_members_have_all_partitions(
    subscription: Subscription, members: dict[str, set[int]], is_spare: bool
) -> None:
    with patch.object(subscription, "_consumer", Member()):
        subscription._on_assign(Member(), [])  # type: ignore[arg-type]
        assert not subscription.works, "a rebalance that gives nothing proves nothing"
        subscription.note_members(members, 3)
    assert subscription.works == is_spare
    assert (subscription.state() == "ok") == is_spare


async def test_a_member_whose_partitions_are_revoked_before_it_received_anything_is_not_ready(
    subscription: Subscription,
) -> None:
    await read(subscription, Position(0, 6, "id"))
    subscription._on_revoke(Member(), [Part(0)])  # type: ignore[arg-type,list-item]
    assert not subscription.works
    await read(subscription, Position(1, 6, "id"))
    subscription._stamped([_end(1, 6)])
    subscription._on_revoke(Member(), [Part(1)])  # type: ignore[arg-type,list-item]
    assert subscription.works


async def test_an_answer_about_the_group_that_comes_after_the_membership_ended_is_ignored(
    subscription: Subscription,
) -> None:
    await subscription.close(5)
    subscription.note_members({"self": set(), "other": {0}}, 1)
    assert not subscription.works


async def test_a_client_without_a_broker_reports_it_until_a_broker_answers(subscription: Subscription) -> None:
    async with asyncio.timeout(20):
        while "brokers are down" not in subscription.state():
            assert await subscription.poll(1, 0.05) == []
    assert "Connection refused" in subscription.state()
    subscription.note_answer()
    assert subscription.state() == f"joining the group {SETTINGS.consumer_group}"


async def test_a_client_whose_close_does_not_end_says_and_counts_nothing_any_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, eventually: Callable[..., Awaitable[None]]
) -> None:
    seen = LogCapture()
    for module in (subscriptions, client_thread):
        monkeypatch.setattr(module, "log", structlog.wrap_logger(None, processors=[seen]))
    monkeypatch.setattr(subscriptions, "Consumer", EndlessConsumer)
    subscription = Subscription(SETTINGS)
    client: Any = subscription._consumer

    async def reports_go_on() -> None:
        reports = client.reports

        async def more() -> bool:
            return bool(client.reports >= reports + 3)

        await eventually(more)

    def told() -> tuple[int, int, float | None]:
        refusals = REGISTRY.get_sample_value("kafka_refusals_total", {"reason": "authentication"})
        return len(seen.entries), len(caplog.records), refusals

    try:
        await subscription.close(0.1)
        # A callback that had begun before has ended by then.
        await reports_go_on()
        before = told()
        await reports_go_on()
        assert told() == before
    finally:
        client.is_released.set()
    assert seen.entries[-1]["event"] == "group_not_left_in_time"


async def read(subscription: Subscription, *positions: Position) -> None:
    """Let the group give the partitions, and start to read them."""
    given: Any = [Part(position.partition) for position in positions]
    subscription._on_assign(Member(), given)  # type: ignore[arg-type]
    await subscription.read(positions)


def _record(partition: int, offset: int) -> Message:
    return Message(topic=SETTINGS.kafka_topic, partition=partition, offset=offset, value=b"{}")


def _end(partition: int, offset: int) -> Message:
    error = KafkaError(KafkaError._PARTITION_EOF)
    return Message(topic=SETTINGS.kafka_topic, partition=partition, offset=offset, error=error)


def _out_of_range(partition: int, offset: int | None) -> Message:
    error = KafkaError(KafkaError._AUTO_OFFSET_RESET)
    return Message(
        topic=SETTINGS.kafka_topic, partition=partition, offset=-1001 if offset is None else offset, error=error
    )


class Part:
    """A partition, as librdkafka passes it to the callbacks."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.topic, self.offset = "t", 0
