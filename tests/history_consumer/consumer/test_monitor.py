"""An alarm of the history is logged when it begins, changes and ends, and no sooner than it is certain."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import LogCapture

from common.events.models import AnyEvent
from common.kafka.connection import KafkaConnection
from common.kafka.topics import end_offsets, ensure_topic
from common.worker import Health, TemporaryError
from history_consumer import metrics
from history_consumer.consumer import alarms
from history_consumer.consumer.batch_writes import Target
from history_consumer.consumer.consumer import HistoryConsumer
from history_consumer.consumer.monitor import Monitor
from history_consumer.operations.status import history_status
from history_consumer.settings import ConsumerSettings
from support.foreign_transactions import ForeignProducer
from support.history_events import History, Topic, Wallet

Rows = Callable[..., Awaitable[list[Any]]]
LATER = """
    WITH events AS (UPDATE history.transaction_events SET recorded_at = recorded_at - interval '31 s')
    UPDATE history.wallet_progress SET updated_at = updated_at - interval '31 s'
"""


def gauges() -> tuple[float | None, float | None]:
    return REGISTRY.get_sample_value("history_old_gaps"), REGISTRY.get_sample_value("history_open_conflicts")


@pytest.fixture(autouse=True)
def checks_without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a check takes long. The rest after it would skip the check that a test looks at."""
    monkeypatch.setattr(alarms, "_REST_FACTOR", 0)


@pytest.fixture
async def monitor(
    new_consumer: Callable[..., HistoryConsumer],
    consumer_engine: AsyncEngine,
    topic: str,
    kafka_bootstrap_servers: str,
    eventually: Any,
) -> Monitor:
    async def has_leaders() -> bool:
        """Whether the new topic's partitions have leaders: until then the broker answers as if it were away."""
        with suppress(KafkaException):
            return bool(await end_offsets(KafkaConnection(kafka_bootstrap_servers), topic, 3))
        return False

    await eventually(has_leaders)
    return Monitor(new_consumer(), consumer_engine, Target("group", topic), Health())


async def look(monitor: Monitor) -> list[tuple[str, str]]:
    # A logger of its own: another test may have bound the module's logger to a level.
    capture = LogCapture()
    every_level = structlog.make_filtering_bound_logger(0)
    logger = structlog.wrap_logger(None, processors=[capture], wrapper_class=every_level)
    with patch.object(alarms, "log", logger):
        await monitor.run_once()
    return [(entry["log_level"], entry["event"]) for entry in capture.entries]


async def test_a_gap_is_an_alarm_after_30_seconds_and_until_it_closes(
    monitor: Monitor, history: History, rows: Rows, operator: AsyncEngine
) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    events: list[AnyEvent] = [ada.created(), ada.funded(), ada.funded(), ada.funded()]
    await history.add(events[0], events[2], bob.created())
    assert await look(monitor) == []
    assert gauges() == (0, 0)
    assert (await history_status(operator, None)).old_gaps == 0
    await rows(LATER)
    assert await look(monitor) == [("error", "history_gaps")]
    assert await look(monitor) == []
    assert gauges() == (1, 0)
    # The wallet has further events. That doesn't make its gap younger.
    await history.add(events[3])
    assert await look(monitor) == []
    assert gauges() == (1, 0)
    status = await history_status(operator, None)
    assert (status.gaps, status.old_gaps) == (1, 1)
    assert [(gap["wallet_id"], gap["is_old"]) for gap in status.oldest_gaps] == [(ada.id, True)]
    await history.add(events[1])
    assert await look(monitor) == [("info", "history_gaps")]
    assert gauges() == (0, 0)


async def test_a_busy_wallet_with_ever_new_gaps_that_close_is_no_alarm(
    monitor: Monitor, history: History, rows: Rows
) -> None:
    ada = Wallet()
    events: list[AnyEvent] = [ada.created(), ada.funded(), ada.funded(), ada.funded(), ada.funded()]
    assert await look(monitor) == []
    await history.add(events[0], events[2])
    await rows(LATER)
    await history.add(events[1], events[4])
    assert await look(monitor) == []
    assert gauges() == (0, 0)


async def test_a_gap_is_no_alarm_while_records_are_unread_that_the_topic_had_since_it_opened(
    monitor: Monitor, history: History, events: Topic, topic: str, rows: Rows
) -> None:
    ada = Wallet()
    created, _, last = ada.created(), ada.funded(), ada.funded()
    events.produce(b"no event", partition=1)
    await history.add(created, last)
    await rows(LATER)
    for _ in range(3):
        assert await look(monitor) == []
    assert gauges() == (0, 0)
    await rows(
        "INSERT INTO history.processed_offsets (consumer_group, topic, partition, next_offset, topic_id)"
        " VALUES ('group', :topic, 1, 1, 'id')",
        topic=topic,
    )
    assert await look(monitor) == [("error", "history_gaps")]
    assert gauges() == (1, 0)


async def test_the_markers_of_a_foreign_transaction_do_not_delay_the_alarm(
    new_consumer: Callable[..., HistoryConsumer],
    consumer_settings: ConsumerSettings,
    consumer_engine: AsyncEngine,
    history: History,
    rows: Rows,
    eventually: Any,
) -> None:
    ada = Wallet()
    created, _, last = ada.created(), ada.funded(), ada.funded()
    await history.add(created, last)
    await rows(LATER)
    with ForeignProducer(consumer_settings.kafka_bootstrap_servers, consumer_settings.kafka_topic) as foreign_producer:
        foreign_producer.write(b"no event", partition=1)
        foreign_producer.commit()
    consumer = new_consumer()
    target = Target(consumer_settings.consumer_group, consumer_settings.kafka_topic)
    monitor = Monitor(consumer, consumer_engine, target, Health())

    async def alarmed() -> bool:
        with suppress(TemporaryError):
            await consumer.run_once()
            await look(monitor)
        return gauges() == (1, 0)

    metrics.old_gaps.set(0)
    await eventually(alarmed)


async def test_a_gap_is_an_alarm_again_after_the_topic_was_recreated_shorter_than_it_was(
    monitor: Monitor, history: History, events: Topic, topic: str, kafka_admin: AdminClient, eventually: Any, rows: Rows
) -> None:
    ada = Wallet()
    created, _, last = ada.created(), ada.funded(), ada.funded()
    await history.add(created, last)
    await rows(LATER)
    events.produce(b"never read", partition=1)
    assert await look(monitor) == []
    await asyncio.wrap_future(kafka_admin.delete_topics([topic])[topic])
    await eventually(lambda: ensure_topic(kafka_admin, topic, 3, {}))

    async def alarmed() -> bool:
        with suppress(TemporaryError):
            await look(monitor)
        return gauges() == (1, 0)

    await eventually(alarmed)


async def test_a_conflict_is_an_alarm_until_its_dead_letter_is_deleted(
    monitor: Monitor, history: History, rows: Rows, operator: AsyncEngine
) -> None:
    ada = Wallet()
    await history.add(ada.created(), Wallet("eve", ada.id).created())
    assert await look(monitor) == [("error", "history_conflicts")]
    assert await look(monitor) == []
    assert gauges() == (0, 1)
    assert (await history_status(operator, None)).conflicts == 1
    await rows("DELETE FROM history.dead_letters")
    assert await look(monitor) == [("info", "history_conflicts")]
    assert gauges() == (0, 0)
