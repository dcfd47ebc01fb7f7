"""Topics as the broker has them."""

import asyncio
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # the stubs leave it out
from confluent_kafka.cimpl import NewTopic

from common.kafka.clients import _ADMIN_TIMEOUT_SECONDS, admin_client


class TopicMissingError(Exception):
    """The topic isn't there (yet)."""


async def ensure_topic(admin: AdminClient, topic: str, partitions: int, config: Mapping[str, str]) -> bool:
    """Create the topic unless it is there; return whether it was created.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    new_topic = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=dict(config))
    future = admin.create_topics([new_topic], request_timeout=_ADMIN_TIMEOUT_SECONDS)[topic]
    try:
        await asyncio.wrap_future(future)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise
    return True


async def describe_topic(bootstrap_servers: str, topic: str) -> tuple[str, int]:
    """Return the topic's id, which a recreated topic doesn't share, and how many partitions it has.

    Raises:
        TopicMissingError: there is no such topic.
        KafkaException: the broker is away, or refuses.
    """
    return await asyncio.to_thread(_describe_topic, bootstrap_servers, topic)


async def end_offsets(bootstrap_servers: str, topic: str, partition_count: int) -> dict[int, int]:
    """Return the offset that the next record will get, by partition; markers of transactions may lie before it.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    return await asyncio.to_thread(_end_offsets, bootstrap_servers, topic, partition_count)


def _end_offsets(bootstrap_servers: str, topic: str, partition_count: int) -> dict[int, int]:
    admin = admin_client(bootstrap_servers)
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    try:
        requests = {TopicPartition(topic, partition): latest for partition in range(partition_count)}
        futures = admin.list_offsets(requests, request_timeout=_ADMIN_TIMEOUT_SECONDS)
        return {part.partition: future.result().offset for part, future in futures.items()}
    finally:
        del admin


def _describe_topic(bootstrap_servers: str, topic: str) -> tuple[str, int]:
    # A client of its own, for 1.3 ms of processor time: one that is kept, and hears of no broker while a lone one
    # comes or goes, may never ask again (librdkafka's issue 5301).
    admin = admin_client(bootstrap_servers)
    try:
        futures = admin.describe_topics(TopicCollection([topic]), request_timeout=_ADMIN_TIMEOUT_SECONDS)
        description = futures[topic].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMissingError(topic) from error
        raise
    finally:
        # It ends here and not with the error that leaves here: its end may block.
        del admin
    return str(description.topic_id), len(description.partitions)
