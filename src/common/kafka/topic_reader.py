"""Reading the topic outside the consumer group: every record between two offsets, once, and without leaving a trace."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Literal, TypeVar
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from common.kafka.clients import SILENT, reader_config
from common.kafka.connection import KafkaConnection
from common.kafka.refusals import refusal_of
from common.kafka.topics import TopicMissingError, describe_topic

ResultT = TypeVar("ResultT")

Expired = Literal["fail", "skip"]
"""What a reader does when retention has deleted a record that it should read: fail, or go on with the next one."""

_TIMEOUT_SECONDS: Final = 10.0
# Below 30 s: the rebuild reads in a transaction, and PostgreSQL ends the session of one that idles for so long.
_SILENCE_SECONDS_MAX: Final = 20.0
_POLL_SECONDS: Final = 0.1
_POLLED_MESSAGES_MAX: Final = 2000

# librdkafka retries after these; the deadline here ends the wait. It also looks for the coordinator of the reader's
# group. That may be denied: the reader needs no group.
_PASSING: Final = frozenset(
    {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError.GROUP_AUTHORIZATION_FAILED}  # noqa: SLF001
)


class TopicReader:
    """Reads one topic. A topic that is missing has no partitions, and its id is empty.

    Args:
        connection: to the brokers.
        name: of the topic.
        topic_id: the topic's id, which a recreated topic does not share.
        partition_count: how many partitions the topic has.
        consumer: the client that reads.
        expired: what to do about records that retention has deleted.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        name: str,
        topic_id: str,
        partition_count: int,
        consumer: Consumer,
        expired: Expired,
    ) -> None:
        self.id = topic_id
        self.name = name
        self.lows: dict[int, int] = {}
        """By partition, the first offset that the topic kept when the reader last asked."""
        self._connection = connection
        self._partition_count = partition_count
        self._consumer = consumer
        self._expired = expired

    async def offsets(self) -> dict[int, tuple[int, int]]:
        """Return by partition the first offset that the topic keeps, and the one that the next record will get.

        Raises:
            TimeoutError: the broker is away.
        """
        return {partition: await self._offsets(partition) for partition in range(self._partition_count)}

    async def is_recreated(self) -> bool:
        """Return whether the topic's id has changed since the reader was opened.

        Raises:
            TimeoutError: the broker is away.
        """
        return (await _describe(self._connection, self.name))[0] != self.id

    async def messages(self, begins: Mapping[int, int], ends: Mapping[int, int]) -> AsyncGenerator[list[Message], None]:
        """Yield the messages of each partition from its begin to before its end, by partition and offset.

        Raises:
            TimeoutError: the broker went away, or `expired` is "fail" and the topic no longer keeps a record.
            KafkaException: the broker refuses this client.
        """
        for partition, end in sorted(ends.items()):
            if begins[partition] < end:
                async for messages in self._messages(partition, begins[partition], end):
                    yield messages
                # A fetch that waits for more records would hold up the next question to the broker.
                self._consumer.unassign()

    async def interleaved_messages(
        self, begins: Mapping[int, int], ends: Mapping[int, int]
    ) -> AsyncGenerator[list[Message], None]:
        """Yield the messages of all partitions, each from its begin to before its end, as the brokers send them.

        Raises:
            TimeoutError: the broker went away.
            KafkaException: the broker refuses this client.
        """
        left = {partition: end for partition, end in ends.items() if begins[partition] < end}
        self._consumer.assign([TopicPartition(self.name, partition, begins[partition]) for partition in left])
        deadline = time.monotonic() + _SILENCE_SECONDS_MAX
        while left:
            if messages := await self._call(self._poll_any, left):
                deadline = time.monotonic() + _SILENCE_SECONDS_MAX
                yield messages
            elif left and time.monotonic() > deadline:
                raise TimeoutError(f"{self._where} stopped sending the partitions {sorted(left)}")
        self._consumer.unassign()

    def _poll_any(self, left: dict[int, int]) -> list[Message]:
        """Return messages from before the ends. A partition that has been read to its end leaves `left`."""
        messages = []
        for message in self._consumer.consume(_POLLED_MESSAGES_MAX, timeout=_POLL_SECONDS):
            partition, next_offset = message.partition() or 0, _next_offset(message)
            end = left.get(partition, 0)
            if message.error() is None and next_offset <= end:
                messages.append(message)
            if end and next_offset >= end:
                del left[partition]
                self._consumer.incremental_unassign([TopicPartition(self.name, partition)])
        return messages

    async def _messages(self, partition: int, next_offset: int, end: int) -> AsyncIterator[list[Message]]:
        self._consumer.assign([TopicPartition(self.name, partition, next_offset)])
        deadline = time.monotonic() + _SILENCE_SECONDS_MAX
        while next_offset < end:
            messages, reached = await self._call(self._poll, next_offset, end)
            if self._expired == "skip" and reached - next_offset > len(messages):
                # Offsets without messages: retention may have deleted the records in the meantime.
                await self._offsets(partition)
            next_offset = reached
            if messages:
                deadline = time.monotonic() + _SILENCE_SECONDS_MAX
                yield messages
            elif next_offset < end and time.monotonic() > deadline:
                raise TimeoutError(f"{self._where} stopped sending partition {partition} at {next_offset}")

    def _poll(self, next_offset: int, end: int) -> tuple[list[Message], int]:
        """Return the messages before `end`, and the offset up to which the partition has been read."""
        messages = []
        for message in self._consumer.consume(min(end - next_offset, _POLLED_MESSAGES_MAX), timeout=_POLL_SECONDS):
            next_offset = max(next_offset, _next_offset(message))
            if message.error() is None and next_offset <= end:
                messages.append(message)
        return messages, next_offset

    async def _offsets(self, partition: int) -> tuple[int, int]:
        topic_partition = TopicPartition(self.name, partition)
        found = await self._call(self._consumer.get_watermark_offsets, topic_partition, _TIMEOUT_SECONDS)
        if found is None:
            raise TimeoutError(f"{self._where} does not say where partition {partition} begins")
        self.lows[partition] = found[0]
        return found

    async def _call(self, call: Callable[..., ResultT], *arguments: Any) -> ResultT:
        with _timeouts(self._connection):
            return await asyncio.to_thread(call, *arguments)

    @property
    def _where(self) -> str:
        return f"Kafka at {self._connection.bootstrap_servers}"


@asynccontextmanager
async def open_topic(
    connection: KafkaConnection, topic: str, client_id: str, *, expired: Expired, checks_crcs: bool = False
) -> AsyncIterator[TopicReader]:
    """Open a reader of the topic for the block.

    Args:
        connection: to the brokers.
        topic: its name.
        client_id: the name that the broker's logs and metrics show.
        expired: what to do about records that retention has deleted.
        checks_crcs: whether the client checks that records arrived as they were written, for some processor time.

    Raises:
        TimeoutError: the broker is away.
        KafkaException: the broker refuses this client.
    """
    topic_id, partition_count = await _describe(connection, topic)
    own = {
        # The client requires a group's name. The reader never joins the group, and commits nothing to it.
        "group.id": f"{client_id}-{uuid4().hex}",
        "auto.offset.reset": "error" if expired == "fail" else "earliest",
        "check.crcs": checks_crcs,
        "fetch.wait.max.ms": 50,
        "logger": SILENT,
    }
    consumer = Consumer(reader_config(connection, client_id, **own))
    try:
        yield TopicReader(connection, topic, topic_id, partition_count, consumer, expired)
    finally:
        await asyncio.to_thread(consumer.close)


def _next_offset(message: Message) -> int:
    """Return the offset up to which the client has read the partition; 0 after an error that passes.

    Raises:
        KafkaException: the broker refuses this client.
    """
    error, offset = message.error(), message.offset() or 0
    if error is None:
        return offset + 1
    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's public name
        return offset
    if not error.retriable() and error.code() not in _PASSING:
        raise KafkaException(error)
    return 0


async def _describe(connection: KafkaConnection, topic: str) -> tuple[str, int]:
    try:
        with _timeouts(connection):
            return await describe_topic(connection, topic)
    except TopicMissingError:
        return "", 0


@contextmanager
def _timeouts(connection: KafkaConnection) -> Iterator[None]:
    """Turn the error of a broker that is away into TimeoutError; a refusal stays what it is."""
    try:
        yield
    except KafkaException as error:
        if refusal_of(error.args[0]):
            raise
        raise TimeoutError(f"Kafka at {connection.bootstrap_servers}: {error.args[0].str()}") from error
