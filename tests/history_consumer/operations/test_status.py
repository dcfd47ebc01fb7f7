"""`walletctl history status` and `dead-letters list` and `show`."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from common.events.models import AnyEvent
from common.kafka import topics
from common.kafka.connection import KafkaConnection
from history_consumer.consumer.consumer import HistoryConsumer
from history_consumer.operations.dead_letters import list_dead_letters, show_dead_letter
from history_consumer.operations.status import Broker, history_status
from support.history_events import History, Topic, Wallet

NewConsumer = Callable[..., HistoryConsumer]
Eventually = Callable[..., Awaitable[Any]]


async def catch_up(consumer: HistoryConsumer, operator: AsyncEngine, broker: Broker, eventually: Eventually) -> None:
    """Consume until the status shows no lag."""

    async def caught_up() -> bool:
        await consumer.run_once()
        status = await history_status(operator, broker)
        return bool(status.partitions) and status.lag == 0

    await eventually(caught_up)


async def test_status_shows_positions_lag_gaps_and_dead_letters(
    new_consumer: NewConsumer,
    events: Topic,
    operator: AsyncEngine,
    kafka_bootstrap_servers: str,
    eventually: Eventually,
) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    skipped: list[AnyEvent] = [ada.created(), ada.funded(), ada.funded()]
    events.produce(skipped[0], skipped[2], bob.created(), b"poison", b"more poison")
    await catch_up(new_consumer(), operator, Broker(KafkaConnection(kafka_bootstrap_servers), -1), eventually)
    events.produce(bob.funded())
    status = await history_status(operator, Broker(KafkaConnection(kafka_bootstrap_servers), -1))
    assert [(row["partition"], row["next_offset"], row["lag"]) for row in status.partitions] == [
        (0, 5, 1),
        (1, 0, 0),
        (2, 0, 0),
    ]
    assert (status.wallets, status.events, status.gaps, status.dead_letters, status.lag) == (2, 3, 1, 2, 1)
    assert [(row["wallet_id"], row["event_count"], row["max_version"]) for row in status.oldest_gaps] == [
        (ada.id, 2, 3)
    ]
    newest, oldest = await list_dead_letters(operator)
    assert (newest["offset"], oldest["offset"]) == (4, 3)
    assert await list_dead_letters(operator, reason="not-json", limit=1, before=newest["id"]) == [oldest]
    assert await list_dead_letters(operator, reason="tombstone") == []
    shown = await show_dead_letter(operator, oldest["id"])
    assert shown
    assert (shown["value"], shown["key"]) == ("poison", {"base64": "a/8="})
    assert shown["headers"][1] == ["odd", {"base64": "/w=="}]
    assert await show_dead_letter(operator, 10**12) is None


async def test_a_partition_that_the_topic_lacks_has_no_lag_and_the_other_partitions_have_theirs(
    new_consumer: NewConsumer,
    events: Topic,
    rows: Callable[..., Awaitable[list[Any]]],
    operator: AsyncEngine,
    kafka_bootstrap_servers: str,
    eventually: Eventually,
) -> None:
    """As after a topic was created again with fewer partitions."""
    events.produce(Wallet().created())
    await catch_up(new_consumer(), operator, Broker(KafkaConnection(kafka_bootstrap_servers), -1), eventually)
    await rows("UPDATE history.processed_offsets SET partition = 3 WHERE partition = 2")
    status = await history_status(operator, Broker(KafkaConnection(kafka_bootstrap_servers), -1))
    assert [(row["partition"], row["lag"]) for row in status.partitions] == [(0, 0), (1, 0), (3, None)]
    assert (status.lag, status.kafka) == (None, f"away: topic {events.name} has no partition 3")


async def test_status_without_a_broker_has_no_lag(
    history: History, operator: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "ADMIN_TIMEOUT_SECONDS", 0.5)
    await history.add(Wallet(id=UUID(int=1)).created())
    away = await history_status(operator, Broker(KafkaConnection("127.0.0.1:1"), -1))
    assert (away.lag, away.partitions[0]["next_offset"]) == (None, 1)
    assert away.kafka.startswith("away: ")
    assert (await history_status(operator, None)).kafka == "not asked"
