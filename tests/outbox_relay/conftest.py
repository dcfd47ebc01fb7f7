"""A relay on the test's own database and topic, and a reader of the topic."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from common.worker import Health
from outbox_relay.pace import Pace
from outbox_relay.publisher import Publisher
from outbox_relay.relay import Relay
from outbox_relay.settings import RelaySettings


@pytest.fixture
def relay_settings(database_url: str, kafka_bootstrap_servers: str, topic: str) -> RelaySettings:
    return RelaySettings(
        database_url=database_url,
        kafka_bootstrap_servers=kafka_bootstrap_servers,
        kafka_topic=topic,
        relay_delivery_timeout_seconds=2,
        relay_low_water_step=1000,
    )


@pytest.fixture
def new_relay(relay_settings: RelaySettings, engine: AsyncEngine) -> Callable[..., Relay]:
    """Make relays; keyword arguments change their settings."""

    def make(**changes: object) -> Relay:
        settings = relay_settings.model_copy(update=changes)
        return Relay(settings, engine, Publisher(settings), Health(), Pace(0, settings.relay_batch_rows))

    return make


@pytest.fixture
def read_topic(kafka_bootstrap_servers: str, topic: str) -> Iterator[Callable[[], list[Message]]]:
    """Read the whole topic, partition by partition, each in its order."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka_bootstrap_servers,
            "group.id": f"test-{uuid4()}",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )

    def read() -> list[Message]:
        found: list[Message] = []
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        for partition in partitions:
            consumer.assign([TopicPartition(topic, partition, 0)])
            while (message := consumer.poll(10)) is not None and message.error() is None:
                found.append(message)
        return found

    yield read
    consumer.close()
