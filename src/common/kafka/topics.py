"""Topics as the broker has them."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the stubs leave some out
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from common.kafka.clients import ADMIN_TIMEOUT_SECONDS, ask_broker
from common.kafka.connection import KafkaConnection
from common.kafka.topic_settings import TopicConfiguration


class TopicMissingError(Exception):
    """The topic does not exist, or not yet."""


async def ensure_topic(admin: AdminClient, topic: str, partitions: int, config: Mapping[str, str]) -> bool:
    """Create the topic unless it exists; return whether it was created.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    new_topic = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=dict(config))
    future = admin.create_topics([new_topic], request_timeout=ADMIN_TIMEOUT_SECONDS)[topic]
    try:
        await asyncio.wrap_future(future)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise
    return True


async def describe_topic(connection: KafkaConnection, topic: str) -> tuple[str, int]:
    """Return the topic's id, which a recreated topic does not share, and how many partitions it has.

    Raises:
        TopicMissingError: there is no such topic.
        KafkaException: the broker is away, or refuses.
    """
    described = await _describe(connection, topic)
    return str(described.topic_id), len(described.partitions)


async def find_topic(connection: KafkaConnection, topic: str) -> TopicConfiguration:
    """Return a topic's settings and replicas; needs DESCRIBE and DESCRIBE_CONFIGS of the topic.

    Raises:
        TopicMissingError: there is no such topic.
        KafkaException: the broker is away, or refuses.
    """
    described = await _describe(connection, topic)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    with _topic_errors(topic):
        answers = await ask_broker(
            connection,
            lambda admin: admin.describe_configs([resource], request_timeout=ADMIN_TIMEOUT_SECONDS),
        )
    settings = {name: entry.value for name, entry in answers[resource].items() if entry.value is not None}
    return TopicConfiguration(settings, min(len(partition.replicas) for partition in described.partitions))


async def set_settings(connection: KafkaConnection, topic: str, settings: Mapping[str, str]) -> None:
    """Set these settings of the topic, and no other settings; needs ALTER_CONFIGS of the topic.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    await ask_broker(
        connection,
        lambda admin: admin.incremental_alter_configs([resource], request_timeout=ADMIN_TIMEOUT_SECONDS),
    )


async def end_offsets(connection: KafkaConnection, topic: str, partition_count: int) -> dict[int, int]:
    """Return by partition the offset that the next record will get. Markers of transactions may lie before it.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    requests = {TopicPartition(topic, partition): latest for partition in range(partition_count)}
    answers = await ask_broker(
        connection, lambda admin: admin.list_offsets(requests, request_timeout=ADMIN_TIMEOUT_SECONDS)
    )
    return {part.partition: answer.offset for part, answer in answers.items()}


async def _describe(connection: KafkaConnection, topic: str) -> Any:
    with _topic_errors(topic):
        answers = await ask_broker(
            connection,
            lambda admin: admin.describe_topics(TopicCollection([topic]), request_timeout=ADMIN_TIMEOUT_SECONDS),
        )
    return answers[topic]


@contextmanager
def _topic_errors(topic: str) -> Iterator[None]:
    """Raise TopicMissingError where the broker does not know the topic."""
    try:
        yield
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMissingError(topic) from error
        raise
