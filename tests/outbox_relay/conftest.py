"""Relays on the test's own database and topic, and a reader of the topic."""

from collections.abc import AsyncIterator, Callable, Iterator
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from common.tables.roles import Role
from common.worker import Health
from outbox_relay.adaptive_batching import AdaptiveBatching
from outbox_relay.publisher import Publisher
from outbox_relay.relay import Relay
from outbox_relay.settings import RelaySettings
from support.outboxes import Outbox
from support.relay_pipeline import RelayPipeline
from support.roles import Roles


@pytest.fixture
def relay_settings(database_url: str, kafka_bootstrap_servers: str, topic: str, roles: Roles) -> RelaySettings:
    return RelaySettings(
        database_url=roles.url(database_url, Role.RELAY),
        kafka_bootstrap_servers=kafka_bootstrap_servers,
        kafka_topic=topic,
        relay_delivery_timeout_seconds=2,
        relay_low_water_step=1000,
    )


@pytest.fixture
async def relay_engine(database_url: str, roles: Roles) -> AsyncIterator[AsyncEngine]:
    """An engine that logs in as a relay does."""
    async with roles.engine(database_url, Role.RELAY) as engine:
        yield engine


@pytest.fixture
def new_relay(relay_settings: RelaySettings, relay_engine: AsyncEngine) -> Callable[..., Relay]:
    """Return a function that makes relays; its keyword arguments change their settings."""

    def make(**changes: object) -> Relay:
        settings = relay_settings.model_copy(update=changes)
        return Relay(
            settings, relay_engine, Publisher(settings), Health(), AdaptiveBatching(0, settings.relay_batch_rows)
        )

    return make


@pytest.fixture
def read_topic(kafka_bootstrap_servers: str, topic: str) -> Iterator[Callable[[], list[Message]]]:
    """Return a function that reads the whole topic, partition by partition, each in its order."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka_bootstrap_servers,
            "group.id": f"test-{uuid4()}",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            # A fetch that waits for more records would delay the next read.
            "fetch.wait.max.ms": 10,
        }
    )

    def read() -> list[Message]:
        found: list[Message] = []
        unread = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in unread])
        while unread:
            message = consumer.poll(10)
            assert message is not None, f"no answer from partitions {unread}"
            if (error := message.error()) is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition())
        consumer.unassign()
        return sorted(found, key=lambda message: message.partition() or 0)

    yield read
    consumer.close()


@pytest.fixture
def pipeline(
    outbox: Outbox,
    relay_engine: AsyncEngine,
    operator: AsyncEngine,
    new_relay: Callable[..., Relay],
    read_topic: Callable[[], list[Message]],
) -> RelayPipeline:
    """The test's outbox, relays and topic."""
    return RelayPipeline(outbox.engine, relay_engine, operator, new_relay, read_topic)
