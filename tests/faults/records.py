"""Reads and writes the topic with plain clients, without the relay."""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from common.kafka.clients import client_config, reader_config
from common.kafka.connection import KafkaConnection
from faults.cluster import TOPIC, Cluster

INJECTED: Final = "injected"
"""The header of a foreign record: the reason for its dead letter, or empty for an event delivered again."""

TRANSACTION_SECONDS: Final = 15.0
_TIMEOUT_SECONDS: Final = 10.0
_MORE_SECONDS: Final = 0.1


class ForeignRecord(NamedTuple):
    """A record to write; `reason` is that of its dead letter."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]] = []  # noqa: RUF012 - a tuple's default, never changed
    reason: str = ""


def read(
    cluster: Cluster, begin: Callable[[int, int], int] = lambda low, _: low, records_max: int = 1_000_000
) -> list[Message]:
    """Return records, partition after partition, in the order of offsets.

    Args:
        cluster: whose topic.
        begin: takes a partition's first offset and the one behind its last, returns where to begin.
        records_max: of each partition.

    Raises:
        KafkaException: the broker is away.
    """
    consumer = Consumer(
        reader_config(
            KafkaConnection(cluster.environment["KAFKA_BOOTSTRAP_SERVERS"]),
            "faults",
            **{"group.id": "faults", "auto.offset.reset": "earliest"},
        )
    )
    found: list[Message] = []
    try:
        for partition in consumer.list_topics(TOPIC, timeout=_TIMEOUT_SECONDS).topics[TOPIC].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=_TIMEOUT_SECONDS)
            offset = begin(low, high)
            end = min(high, offset + records_max)
            consumer.assign([TopicPartition(TOPIC, partition, offset)])
            while offset < end:
                messages = _some(consumer, min(2000, end - offset))
                if not messages:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
                for message in messages:
                    error = message.error()
                    if error is None:
                        offset = (message.offset() or 0) + 1
                        found.append(message)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        offset = max(offset, message.offset() or 0)
                    else:
                        raise KafkaException(error)
    finally:
        consumer.close()
    return found


def _some(consumer: Consumer, most: int) -> list[Message]:
    """Return at most `most` records. There may be fewer records than offsets, because some offsets hold a marker."""
    first = consumer.consume(1, timeout=_TIMEOUT_SECONDS)
    return [*first, *consumer.consume(most - 1, timeout=_MORE_SECONDS)] if first and most > 1 else first


class ForeignTransactions:
    """A foreign producer that writes in transactions, which a relay never does.

    The broker aborts an open transaction after `TRANSACTION_SECONDS`. A commit or an abort leaves one marker in each
    partition written to: an offset without a record.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._producer = Producer(
            client_config(
                KafkaConnection(cluster.environment["KAFKA_BOOTSTRAP_SERVERS"]),
                "faults",
                **{
                    "transactional.id": name,
                    "transaction.timeout.ms": int(TRANSACTION_SECONDS * 1000),
                    "message.timeout.ms": 5000,
                    "socket.timeout.ms": 5000,
                    "linger.ms": 0,
                },
            )
        )
        # Aborts what an earlier producer of this name left open.
        self._producer.init_transactions(_TIMEOUT_SECONDS)

    def begin(self, records: Iterable[ForeignRecord]) -> None:
        """Begin a transaction and write.

        Raises:
            KafkaException: the broker has not confirmed all of them.
        """
        self._producer.begin_transaction()
        _produce(self._producer, records)

    def end(self, *, commit: bool) -> None:
        """Commit or abort, unless the broker has aborted already."""
        end = self._producer.commit_transaction if commit else self._producer.abort_transaction
        try:
            end(_TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._FENCED:
                raise


def write(cluster: Cluster, records: Iterable[ForeignRecord]) -> None:
    """Write records, each to its partition, in this order within a partition.

    Raises:
        KafkaException: the broker has not confirmed all of them.
    """
    producer = Producer(
        client_config(
            KafkaConnection(cluster.environment["KAFKA_BOOTSTRAP_SERVERS"]),
            "faults",
            **{"message.timeout.ms": 5000, "linger.ms": 0},
        )
    )
    _produce(producer, records)


def _produce(producer: Producer, records: Iterable[ForeignRecord]) -> None:
    failures: list[KafkaError] = []

    def note(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    for record in records:
        headers = [*record.headers, (INJECTED, record.reason)]
        producer.produce(TOPIC, record.value, record.key, record.partition, headers=headers, on_delivery=note)
    if producer.flush(_TIMEOUT_SECONDS):
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    if failures:
        raise KafkaException(failures[0])
