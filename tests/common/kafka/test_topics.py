from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException

from common.kafka import topics
from common.kafka.connection import KafkaConnection
from common.kafka.topic_settings import needed_settings, wrong_settings
from common.kafka.topics import TopicMissingError, describe_topic, find_topic, set_settings


def _clients() -> int:
    """Return how many librdkafka clients this process has: each has one main thread."""
    count = 0
    for name in Path("/proc/self/task").glob("*/comm"):
        with suppress(FileNotFoundError):
            count += name.read_text().startswith("rdk:main")
    return count


async def test_a_question_about_a_topic_leaves_no_client_behind(
    kafka_bootstrap_servers: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _clients()
    topic_id, partitions = await describe_topic(KafkaConnection(kafka_bootstrap_servers), topic)
    assert (bool(topic_id), partitions) == (True, 3)
    with pytest.raises(TopicMissingError):
        await describe_topic(KafkaConnection(kafka_bootstrap_servers), "not-there")
    monkeypatch.setattr(topics, "ADMIN_TIMEOUT_SECONDS", 1.0)
    with pytest.raises(KafkaException, match="_TIMED_OUT"):
        await describe_topic(KafkaConnection("127.0.0.1:1"), topic)
    # Clients of other tests may have ended meanwhile.
    assert _clients() <= before


async def test_settings_are_found_as_they_were_set(
    kafka_bootstrap_servers: str, topic: str, eventually: Callable[..., Awaitable[Any]]
) -> None:
    connection = KafkaConnection(kafka_bootstrap_servers)

    def is_wrong(*names: str) -> Callable[[], Awaitable[bool]]:
        async def condition() -> bool:
            return set(names) == wrong_settings(await find_topic(connection, topic), -1).keys()

        return condition

    # The broker applies settings a moment after it has taken them.
    await set_settings(
        connection, topic, {**needed_settings(-1), "cleanup.policy": "compact", "retention.bytes": "5000"}
    )
    await eventually(is_wrong("cleanup.policy", "retention.bytes"))
    assert (await find_topic(connection, topic)).replicas == 1
    await set_settings(connection, topic, needed_settings(-1))
    await eventually(is_wrong())
    with pytest.raises(TopicMissingError):
        await find_topic(connection, "not-there")
