"""Reading the topic: every record between two offsets of each partition, once, leaving no trace."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from common.kafka.clients import reader_config
from common.kafka.topics import TopicMissingError, describe_topic
from common.settings import PipelineSettings
from history_consumer.consumer.records import headers_of, source_epoch_of

_TIMEOUT_SECONDS: Final = 10.0
_SILENCE_SECONDS_MAX: Final = 30.0
_POLL_SECONDS: Final = 0.1
_POLLED_RECORDS: Final = 2000


class Record(NamedTuple):
    """A record as far as it is compared: where it is, `ce_id`, epoch and key, the SHA-256 of its value.

    The epoch is 0 where it is nonsense.
    """

    partition: int
    offset: int
    event_id: str | None
    source_epoch: int
    key: str | None
    digest: str


class Range(NamedTuple):
    """Offsets of one partition, both included."""

    first: int
    last: int


class Topic:
    """The topic as it is; `lows` says from which offset on it still keeps records, by partition read."""

    def __init__(self, settings: PipelineSettings, topic_id: str | None, partitions: int, consumer: Consumer) -> None:
        self.id = topic_id
        self.partitions = partitions
        self.lows: dict[int, int] = {}
        self._name = settings.kafka_topic
        self._servers = settings.kafka_bootstrap_servers
        self._consumer = consumer

    async def offsets(self, partition: int) -> tuple[int, int]:
        """Return the first offset that is kept and the one that the next record will get, as they are now."""

        def ask() -> tuple[int, int]:
            with _errors_translated(self._servers):
                found = self._consumer.get_watermark_offsets(
                    TopicPartition(self._name, partition), timeout=_TIMEOUT_SECONDS
                )
            if found is None:
                raise TimeoutError(f"Kafka at {self._servers} doesn't say where partition {partition} begins")
            return found

        low, high = await asyncio.to_thread(ask)
        self.lows[partition] = low
        return low, high

    async def records(self, ranges: Mapping[int, Range]) -> AsyncGenerator[Record, None]:
        """Yield the records of these ranges, ascending by partition and offset.

        Raises:
            TimeoutError: the broker went away.
        """
        for partition in sorted(ranges):
            if partition < self.partitions:
                async for record in self._records(partition, ranges[partition]):
                    yield record
                # A fetch that waits for more records would hold up the next question to the broker.
                self._consumer.unassign()

    async def _records(self, partition: int, wanted: Range) -> AsyncIterator[Record]:
        low, high = await self.offsets(partition)
        position, end = max(wanted.first, low), min(wanted.last + 1, high)
        if position >= end:
            return
        self._consumer.assign([TopicPartition(self._name, partition, position)])
        deadline = time.monotonic() + _SILENCE_SECONDS_MAX
        while position < end:
            records, end_offset = await asyncio.to_thread(self._poll, min(end - position, _POLLED_RECORDS))
            if records and records[-1].offset - position >= len(records):
                # A jump: retention may have taken what is between while we read.
                await self.offsets(partition)
            for record in records:
                if record.offset >= end:
                    return
                position = record.offset + 1
                yield record
            if end_offset >= end:
                return
            if records:
                deadline = time.monotonic() + _SILENCE_SECONDS_MAX
            elif time.monotonic() > deadline:
                raise TimeoutError(f"Kafka at {self._servers} stopped sending partition {partition} at {position}")

    def _poll(self, count: int) -> tuple[list[Record], int]:
        """Return up to `count` records, and the offset of the partition's end if it was reached, else -1."""
        records, end_offset = [], -1
        with _errors_translated(self._servers):
            for message in self._consumer.consume(count, timeout=_POLL_SECONDS):
                error = message.error()
                if error is None:
                    records.append(_record(message))
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's public name
                    end_offset = message.offset() or 0
                elif not error.retriable() and error.code() not in _PASSING:
                    raise KafkaException(error)
        return records, end_offset


# librdkafka goes on trying by itself; our own deadline ends the wait.
_PASSING: Final = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})  # noqa: SLF001 - as above


def _record(message: Message) -> Record:
    event_id: Any = dict(headers_of(message)).get("ce_id")
    key = message.key()
    return Record(
        message.partition() or 0,
        message.offset() or 0,
        event_id and event_id.decode(errors="replace"),
        source_epoch_of(message),
        None if key is None else bytes(key).decode(errors="replace"),
        hashlib.sha256(message.value() or b"").hexdigest(),
    )


@asynccontextmanager
async def opened(settings: PipelineSettings) -> AsyncIterator[Topic]:
    """Open the topic for the block; one that isn't there has no partitions.

    Raises:
        TimeoutError: the broker is away, or refuses.
    """
    with _errors_translated(settings.kafka_bootstrap_servers):
        try:
            topic_id, partitions = await describe_topic(settings.kafka_bootstrap_servers, settings.kafka_topic)
        except TopicMissingError:
            topic_id, partitions = None, 0
    consumer = Consumer(
        reader_config(
            settings.kafka_bootstrap_servers,
            "walletctl-verify",
            **{
                # Never joined and never committed to; librdkafka wants a name.
                "group.id": f"walletctl-verify-{uuid4()}",
                # Retention may overtake us: go on with what is left.
                "auto.offset.reset": "earliest",
                "check.crcs": True,
                "fetch.wait.max.ms": 50,
            },
        )
    )
    try:
        yield Topic(settings, topic_id, partitions, consumer)
    finally:
        await asyncio.to_thread(consumer.close)


@contextmanager
def _errors_translated(servers: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise TimeoutError(f"Kafka at {servers}: {error.args[0].str()}") from error
