"""One membership in the consumer group: librdkafka's calls in one thread of their own.

The rebalance callbacks only note what the group gave and took. A partition is read from the moment on that its
position is known, which is later; librdkafka lets a member assign itself less than it was given.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from common.kafka import client_config
from common.worker import FAILURE_PAUSES, TemporaryError
from history_consumer.positions import Assignment, Position
from history_consumer.records import Record, record_of
from history_consumer.settings import ConsumerSettings

log = structlog.get_logger()

ResultT = TypeVar("ResultT")

_POLL_MARGIN_SECONDS: Final = 5.0

_SILENT = {KafkaError._PARTITION_EOF}  # noqa: SLF001 - the client's public names begin so
_OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001


class Subscription:
    """A member of the group that reads the topic.

    Raises:
        KafkaException: the configuration is refused.
    """

    def __init__(self, settings: ConsumerSettings, assignment: Assignment) -> None:
        self._topic = settings.kafka_topic
        self._session_seconds = settings.consumer_session_timeout_seconds
        self._assignment = assignment
        # Which record of each partition comes next.
        self._next_polled: dict[int, int] = {}
        self._thread = ThreadPoolExecutor(1, "kafka-consumer")
        self._write_seconds_max = settings.consumer_transaction_timeout_seconds
        self._nothing_is_written = threading.Event()
        self._nothing_is_written.set()
        self._consumer = Consumer(_configuration(settings))
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    async def poll(self, records_max: int, wait_seconds: float) -> list[Record]:
        """Return the next records; wait for the first one, and for no other.

        Raises:
            TemporaryError: the client is beyond repair and must be made anew, or the broker refuses.
        """
        return await self._in_thread(lambda: self._poll(records_max, wait_seconds))

    async def read(self, positions: Sequence[Position]) -> None:
        """Begin to read these partitions at their positions.

        Raises:
            TemporaryError: the client refuses.
        """
        parts = [TopicPartition(self._topic, position.partition, position.next_offset) for position in positions]
        await self._in_thread(lambda: self._consumer.incremental_assign(parts))
        self._next_polled |= {position.partition: position.next_offset for position in positions}
        self._assignment.hold(positions)

    async def halt(self, position: Position, why: str) -> None:
        """Stop reading the partition, if it is read, and let it stand still."""
        await self._in_thread(lambda: self._halt(position, why))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Give up no partition meanwhile: who gets it next reads where we will be, not where we were."""
        self._nothing_is_written.clear()
        try:
            yield
        finally:
            self._nothing_is_written.set()

    async def note_progress(self, positions: Sequence[Position]) -> None:
        """Tell Kafka where the consumer is, for tools that show the lag; nothing depends on it."""
        offsets = [TopicPartition(self._topic, position.partition, position.next_offset) for position in positions]
        try:
            await self._in_thread(lambda: self._consumer.commit(offsets=offsets, asynchronous=True))
        except TemporaryError as error:
            log.debug("kafka_commit_failed", error=str(error))

    async def close(self, wait_seconds: float) -> None:
        """Leave the group; what isn't done in time is left to the session timeout."""
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()

        def close() -> None:
            self._thread.shutdown()
            self._consumer.close()
            loop.call_soon_threadsafe(closed.set)

        # A daemon: a close that hangs must not keep the process.
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(close,), name="kafka-consumer-close", daemon=True).start()
        try:
            await asyncio.wait_for(closed.wait(), wait_seconds)
        except TimeoutError:
            log.warning("group_not_left_in_time", wait_seconds=wait_seconds)

    async def _in_thread(self, call: Callable[[], ResultT]) -> ResultT:
        # The context carries the log's fields.
        run = contextvars.copy_context().run
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, run, call)
        except KafkaException as error:
            raise TemporaryError("kafka", error) from error

    def _poll(self, records_max: int, wait_seconds: float) -> list[Record]:
        message = self._consumer.poll(wait_seconds)
        if message is None:
            return []
        # Each message is stamped right after the call that returned it: the next one may serve a rebalance.
        records = self._stamped([message])
        if records_max > 1:
            records += self._stamped(self._consumer.consume(records_max - 1, timeout=0))
        return records

    def _stamped(self, messages: Sequence[Message]) -> list[Record]:
        records = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_error(error, message.partition(), message.offset())
                continue
            position = self._assignment.held.get(_number(message.partition()))
            if position is not None:
                record = record_of(message, position)
                self._next_polled[record.partition] = record.offset + 1
                records.append(record)
        return records

    def _on_error(self, error: KafkaError, partition: int | None, offset: int | None) -> None:
        if error.code() in _SILENT:
            return
        position = self._assignment.held.get(_number(partition))
        if error.code() in _OUT_OF_RANGE:
            if position is not None:
                self._on_out_of_range(position, offset)
            return
        if error.code() == KafkaError.INVALID_SESSION_TIMEOUT:
            raise TemporaryError("kafka", session_refused(self._session_seconds))
        log.warning("kafka_consumer_error", partition=partition, code=error.name(), error=error.str())
        if error.fatal():
            raise KafkaException(error)

    def _on_out_of_range(self, position: Position, offset: int | None) -> None:
        # librdkafka gives this error no version (rd_kafka_offset_reset): that of a fetch from before the partition was
        # taken up may come after, and has then stopped the fetching anew.
        if offset is None or offset == self._next_polled[position.partition]:
            self._halt(position, out_of_range(self._topic, position))
            return
        log.warning("partition_read_again", partition=position.partition, refused_offset=offset)
        self._consumer.incremental_unassign([TopicPartition(self._topic, position.partition)])
        self._assignment.look_up_again(position)

    def _halt(self, position: Position, why: str) -> None:
        if position.partition in self._assignment.held:
            self._consumer.incremental_unassign([TopicPartition(self._topic, position.partition)])
        self._assignment.halt(position, why)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._assignment.give([part.partition for part in partitions])
        consumer.incremental_assign([])
        if partitions:
            log.info("partitions_given", partitions=sorted(part.partition for part in partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._nothing_is_written.wait(self._write_seconds_max)
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        read = self._assignment.take([part.partition for part in partitions])
        consumer.incremental_unassign([TopicPartition(self._topic, partition) for partition in read])
        log.info("partitions_taken", partitions=sorted(part.partition for part in partitions))


def out_of_range(topic: str, position: Position) -> str:
    """Say what is wrong when the topic hasn't got the offset, and the ways out."""
    return (
        f"{topic} has no record at offset {position.next_offset}, where the history goes on: records are missing. "
        "Restore the topic, or rebuild the history (`walletctl history rebuild`)"
    )


def session_refused(seconds: float) -> str:
    """Say what is wrong when the broker allows no such session timeout, and the way out."""
    return (
        f"the broker refuses CONSUMER_SESSION_TIMEOUT_SECONDS={seconds:g}: set it within the broker's "
        "group.min.session.timeout.ms and group.max.session.timeout.ms"
    )


def recreated(topic: str, position: Position, topic_id: str) -> str:
    """Say what is wrong when the topic is another one than before, and the ways out."""
    return (
        f"{topic} was recreated: its id is {topic_id}, the history was read from {position.topic_id} up to offset "
        f"{position.next_offset}. Restore the topic, or rebuild the history (`walletctl history rebuild`)"
    )


def restored(topic: str) -> str:
    """Say what is wrong when the wallet database is in an epoch that the history doesn't know, and the way out."""
    return (
        f"the wallet database was restored to an earlier time: what the history has from {topic} may tell of what no "
        "longer happened. Rebuild the history (`walletctl history rebuild`)"
    )


def _configuration(settings: ConsumerSettings) -> dict[str, Any]:
    group: dict[str, Any] = {"group.protocol": "consumer"}
    if settings.consumer_group_protocol == "classic":
        session_ms = round(settings.consumer_session_timeout_seconds * 1000)
        group = {
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": session_ms // 4,
        }
    # A join whose answer is lost is waited for this long (librdkafka, rd_kafka_JoinGroupRequest), 300 s by default.
    poll_seconds_max = max(
        settings.consumer_transaction_timeout_seconds + FAILURE_PAUSES.longest_seconds + _POLL_MARGIN_SECONDS,
        settings.consumer_session_timeout_seconds,
    )
    return client_config(
        settings.kafka_bootstrap_servers,
        "history-consumer",
        **group,
        **{
            "group.id": settings.consumer_group,
            "max.poll.interval.ms": round(poll_seconds_max * 1000),
            # Positions live in the database; Kafka never decides where to read from.
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "fetch.error.backoff.ms": 100,
            # With the defaults a consumer that is behind holds 360 MB; with these, 140 MB, and is as fast.
            "fetch.max.bytes": 2_000_000,
            "queued.max.messages.kbytes": 4_096,
            "queued.min.messages": 10_000,
            # Once so much waits, librdkafka doesn't ask for more for this long: 1 s by default, in which all is read.
            "fetch.queue.backoff.ms": 10,
            "error_cb": _on_client_error,
            "on_commit": _on_commit,
        },
    )


def _on_client_error(error: KafkaError) -> None:
    log.warning("kafka_client_error", code=error.name(), error=error.str(), fatal=error.fatal())


def _on_commit(error: KafkaError | None, partitions: list[TopicPartition]) -> None:
    if error is not None:
        log.debug("kafka_commit_failed", error=error.str(), partitions=[part.partition for part in partitions])


def _number(partition: int | None) -> int:
    return -1 if partition is None else partition
