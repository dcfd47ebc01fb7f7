"""The topic's records as the consumer sees them, read without a group and leaving no trace."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from common.events import FIRST_SOURCE_EPOCH
from common.kafka.clients import reader_config
from common.kafka.topics import TopicMissingError, describe_topic
from common.settings import KafkaSettings
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import Record, record_of

ResultT = TypeVar("ResultT")

_TIMEOUT_SECONDS: Final = 10.0
_SILENCE_SECONDS_MAX: Final = 20.0
_POLL_SECONDS: Final = 0.1
_POLLED_RECORDS: Final = 2000

# librdkafka goes on trying by itself; our own deadline ends the wait.
_PASSING: Final = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})  # noqa: SLF001 - public names


class Topic:
    """The topic; one that isn't there has no partitions."""

    def __init__(self, settings: KafkaSettings, topic_id: str, partitions: int, consumer: Consumer) -> None:
        self.id = topic_id
        self.name = settings.kafka_topic
        self.partitions = partitions
        self.source_epoch = FIRST_SOURCE_EPOCH
        """With which epoch the records that are read are to be in line."""
        self._settings = settings
        self._consumer = consumer

    async def offsets(self) -> dict[int, tuple[int, int]]:
        """Return by partition the first offset that is kept and the one that the next record will get.

        Raises:
            TimeoutError: the broker is away.
        """

        def ask() -> dict[int, tuple[int, int]]:
            found = {}
            for partition in range(self.partitions):
                part = TopicPartition(self.name, partition)
                offsets = self._consumer.get_watermark_offsets(part, timeout=_TIMEOUT_SECONDS)
                if offsets is None:
                    raise TimeoutError(f"Kafka doesn't say where partition {partition} begins")
                found[partition] = offsets
            return found

        return await _in_thread(ask)

    async def is_the_same(self) -> bool:
        """Whether the topic has the same id as at the start."""
        return (await _describe(self._settings))[0] == self.id

    async def records(self, begins: Mapping[int, int], ends: Mapping[int, int]) -> AsyncGenerator[list[Record], None]:
        """Yield the records of each partition from its begin to before its end, in order.

        Raises:
            TimeoutError: the broker went away, or no longer keeps the records.
        """
        for partition, end in sorted(ends.items()):
            if begins[partition] < end:
                async for records in self._records(partition, begins[partition], end):
                    yield records
                self._consumer.unassign()

    async def _records(self, partition: int, next_offset: int, end: int) -> AsyncIterator[list[Record]]:
        self._consumer.assign([TopicPartition(self.name, partition, next_offset)])
        deadline = time.monotonic() + _SILENCE_SECONDS_MAX
        while next_offset < end:
            records, next_offset = await _in_thread(self._poll, partition, next_offset, end)
            if records:
                deadline = time.monotonic() + _SILENCE_SECONDS_MAX
                yield records
            elif next_offset < end and time.monotonic() > deadline:
                raise TimeoutError(f"Kafka stopped sending partition {partition} at {next_offset}")

    def _poll(self, partition: int, next_offset: int, end: int) -> tuple[list[Record], int]:
        """Return the records before `end`, and the offset behind what has been read."""
        records = []
        for message in self._consumer.consume(_POLLED_RECORDS, timeout=_POLL_SECONDS):
            error = message.error()
            if error is None:
                offset = message.offset() or 0
                next_offset = offset + 1
                if offset < end:
                    records.append(record_of(message, Position(partition, offset, self.id, self.source_epoch)))
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's public name
                next_offset = max(next_offset, message.offset() or 0)
            elif not error.retriable() and error.code() not in _PASSING:
                raise KafkaException(error)
        return records, next_offset


async def _in_thread(call: Callable[..., ResultT], *arguments: Any) -> ResultT:
    try:
        return await asyncio.to_thread(call, *arguments)
    except KafkaException as error:
        raise TimeoutError(f"Kafka: {error.args[0].str()}") from error


@asynccontextmanager
async def opened(settings: KafkaSettings) -> AsyncIterator[Topic]:
    """Open the topic for the block.

    Raises:
        TimeoutError: the broker is away, or refuses.
    """
    topic_id, partitions = await _describe(settings)
    consumer = Consumer(
        reader_config(
            settings.kafka_bootstrap_servers,
            "walletctl-rebuild",
            **{
                # The client wants a name; nobody joins this group, and nothing is committed to it.
                "group.id": f"walletctl-rebuild-{uuid4().hex}",
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
            },
        )
    )
    try:
        yield Topic(settings, topic_id, partitions, consumer)
    finally:
        await asyncio.to_thread(consumer.close)


async def _describe(settings: KafkaSettings) -> tuple[str, int]:
    try:
        return await describe_topic(settings.kafka_bootstrap_servers, settings.kafka_topic)
    except TopicMissingError:
        return "", 0
    except KafkaException as error:
        raise TimeoutError(f"Kafka at {settings.kafka_bootstrap_servers}: {error.args[0].str()}") from error
