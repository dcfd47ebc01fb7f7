from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

import common.kafka.topics
from common.kafka.topics import TopicMissingError, describe_topic


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
    topic_id, partitions = await describe_topic(kafka_bootstrap_servers, topic)
    assert (bool(topic_id), partitions) == (True, 3)
    with pytest.raises(TopicMissingError):
        await describe_topic(kafka_bootstrap_servers, "not-there")
    monkeypatch.setattr(common.kafka.topics, "_ADMIN_TIMEOUT_SECONDS", 1.0)
    with pytest.raises(KafkaException, match="_TIMED_OUT"):
        await describe_topic("127.0.0.1:1", topic)
    # What other tests left may have gone meanwhile.
    assert _clients() <= before
