"""How the consumer's Kafka client is configured."""

from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, TopicPartition

from common.kafka.callbacks import ClientCallbacks
from common.kafka.clients import reader_config
from common.pauses import FAILURE_PAUSES
from history_consumer.settings import ConsumerSettings

log = structlog.get_logger()

_POLL_MARGIN_SECONDS: Final = 5.0


def client_of_group(settings: ConsumerSettings, callbacks: ClientCallbacks) -> dict[str, Any]:
    """Return librdkafka's configuration of a member of the group, with its callbacks."""
    group: dict[str, Any] = {"group.protocol": "consumer"}
    if settings.consumer_group_protocol == "classic":
        session_ms = round(settings.consumer_session_timeout_seconds * 1000)
        group = {
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": session_ms // 4,
        }
    # librdkafka waits this long for a join whose reply is lost (rd_kafka_JoinGroupRequest); the default is 300 s.
    poll_seconds_max = max(
        settings.consumer_transaction_timeout_seconds + FAILURE_PAUSES.longest_seconds + _POLL_MARGIN_SECONDS,
        settings.consumer_session_timeout_seconds,
    )
    return reader_config(
        settings.kafka,
        "history-consumer",
        **group,
        **{
            "group.id": settings.consumer_group,
            "max.poll.interval.ms": round(poll_seconds_max * 1000),
            # The database has the positions: Kafka never decides where a consumer reads.
            "auto.offset.reset": "error",
            "fetch.error.backoff.ms": 100,
            # With the defaults a consumer that is behind holds 360 MB. With these it holds 140 MB, and is as fast.
            "fetch.max.bytes": 2_000_000,
            "queued.max.messages.kbytes": 4_096,
            "queued.min.messages": 10_000,
            # With a full queue librdkafka fetches nothing for this long. In the default second the queue runs empty.
            "fetch.queue.backoff.ms": 10,
            "on_commit": callbacks.while_used(_on_commit),
            **callbacks.properties(),
        },
    )


def _on_commit(error: KafkaError | None, partitions: list[TopicPartition]) -> None:
    if error is not None:
        log.debug("kafka_commit_failed", error=error.str(), partitions=[part.partition for part in partitions])
