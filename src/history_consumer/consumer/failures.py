"""Which errors mean that a server is away, so that the worker retries instead of ending, and their messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from common.kafka.refusals import explained
from common.kafka.topics import TopicMissingError
from common.worker import TemporaryError
from history_consumer.consumer.positions import Position

# After these librdkafka retries, or joins again, by itself. Any other error ends the membership: the next one shows
# whether the error persists, and `/ready` tells the operator.
PASSING: Final = {
    KafkaError._MAX_POLL_EXCEEDED,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._RESOLVE,  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError._WAIT_COORD,  # noqa: SLF001
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
}


class MembershipEndedError(TemporaryError):
    """This membership in the group is of no use any more: the consumer leaves, and joins again after a pause."""

    def __init__(self, why: str) -> None:
        super().__init__("kafka", why)
        self.why = why


@contextmanager
def kafka_errors(group: str, topic: str) -> Iterator[None]:
    """Turn errors of Kafka into TemporaryError: they may pass, or an operator corrects the cause."""
    try:
        yield
    except KafkaException as error:
        raise TemporaryError("kafka", kafka_explained(error.args[0], group, topic)) from error
    except TopicMissingError as error:
        raise TemporaryError("kafka", f"the topic {error} does not exist yet") from error


def kafka_explained(error: KafkaError, group: str, topic: str) -> str:
    """Return what a Kafka error says and its remedy; if the broker denies an operation, name that and the resource."""
    message = f"{error.name()}: {explained(error)}"
    # A fatal error (KIP-848) tells its reason only in its text.
    if "Topic authorization failed" in message:
        denied = f"READ on the topic {topic}"
    elif "Group authorization failed" in message:
        denied = f"READ on the group {group}"
    else:
        return message
    return f"{denied} is denied to this client (User:ANONYMOUS, if it has no login): {message}"


def out_of_range(topic: str, position: Position) -> str:
    """Return the message for an offset that the topic no longer has, with the ways out."""
    return (
        f"{topic} has no record at offset {position.next_offset}, where the history goes on: records are missing. "
        "Restore the topic, or rebuild the history (`walletctl history rebuild`)"
    )


def session_refused(seconds: float) -> str:
    """Return the message for a session timeout that the broker refuses, with the way out."""
    return (
        f"the broker refuses CONSUMER_SESSION_TIMEOUT_SECONDS={seconds:g}: set it within the broker's "
        "group.min.session.timeout.ms and group.max.session.timeout.ms"
    )


def recreated(topic: str, position: Position, topic_id: str) -> str:
    """Return the message for a topic that was recreated, with the ways out."""
    return (
        f"{topic} was recreated: its id is {topic_id}, the history was read from {position.topic_id} up to offset "
        f"{position.next_offset}. Restore the topic, or rebuild the history (`walletctl history rebuild`)"
    )


def restored(topic: str) -> str:
    """Return the message for a history that was not rebuilt after a restore, with the way out."""
    return (
        f"the wallet database was restored to an earlier time: the history may have events of {topic} that the restore "
        "undid. Rebuild the history (`walletctl history rebuild`)"
    )
