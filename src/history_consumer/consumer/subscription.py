"""One membership in the consumer group: librdkafka's calls in one thread of their own.

The rebalance callbacks only note which partitions the group gives and revokes. A partition is read later, when its
position is known: librdkafka lets a member assign itself fewer partitions than it was given.

The assignment belongs to the membership and ends with it. Only the thread that calls librdkafka replaces it. Callbacks
run there inside a poll, and the event loop's calls run there between polls.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from common.kafka.callbacks import ClientCallbacks
from common.kafka.refusals import count_refusal, explained, is_login_refused
from common.worker import TemporaryError
from history_consumer.consumer.client import client_of_group
from history_consumer.consumer.client_thread import ClientThread
from history_consumer.consumer.failures import (
    PASSING,
    MembershipEndedError,
    kafka_explained,
    out_of_range,
    session_refused,
)
from history_consumer.consumer.positions import Assignment, Position
from history_consumer.consumer.records import Record, end_of, record_of
from history_consumer.settings import ConsumerSettings

log = structlog.get_logger()

ResultT = TypeVar("ResultT")

_OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001 - public names
_temporary = partial(TemporaryError, "kafka")


class Subscription:
    """A member of the group that reads the topic.

    Raises:
        KafkaException: the configuration is refused.
    """

    def __init__(self, settings: ConsumerSettings) -> None:
        self.assignment = Assignment()
        self.stall = ""
        """Why the client is stalled, if the stall detector says so: then this membership is of no use any more."""
        self._topic = settings.kafka_topic
        self._group = settings.consumer_group
        self._session_seconds = settings.consumer_session_timeout_seconds
        # The group gave this membership a partition, or other members have them all: it is a spare.
        self._is_joined = False
        # A record or a partition's end has come: the broker lets this client read.
        self._has_received = False
        # Why a broker refuses the connection, why no broker answers, and the last error of one broker.
        self._refusal = ""
        self._brokers_down = ""
        self._last_error = ""
        self._is_closed = False
        # By partition, the offset of the record that the next poll returns.
        self._next_polled: dict[int, int] = {}
        self._thread = ClientThread()
        self._write_seconds_max = settings.consumer_transaction_timeout_seconds
        self._no_write = threading.Event()
        self._no_write.set()
        self._callbacks = ClientCallbacks(self._on_client_error)
        self._consumer = Consumer(client_of_group(settings, self._callbacks))
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    async def poll(self, records_max: int, wait_seconds: float) -> list[Record]:
        """Return the next records; wait only for the first one.

        Raises:
            MembershipEndedError: the client must be replaced, or the broker refuses it.
        """
        return await self._in_thread(lambda: self._poll(records_max, wait_seconds), MembershipEndedError)

    async def read(self, positions: Sequence[Position]) -> None:
        """Start to read these partitions at their positions.

        Raises:
            TemporaryError: the client refuses.
        """
        await self._in_thread(lambda: self._read(positions))

    async def halt(self, position: Position, why: str) -> None:
        """Halt the partition, if this membership still has it under this position; log why."""
        await self._in_thread(lambda: self._halt(position, why))

    async def release(self, positions: Sequence[Position]) -> None:
        """Let partitions be read again, if they are still halted at these positions."""
        if not self._is_closed:
            await self._in_thread(lambda: self._release(positions))

    def state(self) -> str:
        """Return "ok" if this membership is in the group and reads all partitions that it was given.

        Otherwise return what is wrong or still to come.
        """
        assignment = self.assignment
        if self._brokers_down:
            return self._brokers_down
        if not self._is_joined:
            return f"joining the group {self._group}"
        if assignment.halted:
            return assignment.state()
        if assignment.pending:
            return f"partitions {', '.join(map(str, sorted(assignment.pending)))} are not read yet"
        if assignment.held and not self._has_received:
            return f"no record or end of {self._topic} has come yet"
        return "ok"

    @property
    def works(self) -> bool:
        """Whether the broker let this membership into the group and lets it read; partitions may be halted."""
        assignment = self.assignment
        return self._is_joined and not assignment.pending and (self._has_received or not assignment.held)

    @property
    def may_be_spare(self) -> bool:
        """Whether the group has given no partition yet, or took it before this client received anything."""
        return not self._is_joined and not self._is_closed

    def note_members(self, members: Mapping[str, Collection[int]], partition_count: int) -> None:
        """Note whether this membership is a spare, by the partitions that the broker lists for each member.

        To be listed is not enough: the group may be about to give this membership partitions, which it may not read.
        """
        # The membership may have ended since the broker was asked. A closed client has no id.
        if not self.may_be_spare:
            return
        own_id = self._consumer.memberid()
        others = [partitions for member, partitions in members.items() if member != own_id]
        if own_id in members and len(set().union(*others)) == partition_count:
            self._is_joined = True

    def note_answer(self) -> None:
        """Note that a broker answered another client of this process."""
        self._brokers_down = ""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep revoked partitions until the block ends: their next consumer reads from the position that it writes."""
        self._no_write.clear()
        try:
            yield
        finally:
            self._no_write.set()

    async def commit_offsets(self, positions: Sequence[Position]) -> None:
        """Commit offsets to Kafka, for tools that show the lag; nothing depends on it."""
        offsets = [TopicPartition(self._topic, position.partition, position.next_offset) for position in positions]
        try:
            await self._in_thread(lambda: self._consumer.commit(offsets=offsets, asynchronous=True))
        except TemporaryError as error:
            log.debug("kafka_commit_failed", error=str(error))

    async def close(self, wait_seconds: float) -> None:
        """Leave the group; if that takes longer, the session timeout ends the membership.

        A client whose close hangs goes on connecting to brokers. It is silenced then.
        """
        self._is_closed = True
        try:
            await self._thread.close(self._consumer.close, wait_seconds)
        finally:
            self._callbacks.silence()

    async def _in_thread(
        self, call: Callable[[], ResultT], failure: Callable[[str], TemporaryError] = _temporary
    ) -> ResultT:
        try:
            return await self._thread.run(call)
        except KafkaException as error:
            count_refusal(error.args[0])
            raise failure(kafka_explained(error.args[0], self._group, self._topic)) from error

    def _read(self, positions: Sequence[Position]) -> None:
        due = [position for position in positions if self.assignment.has(position)]
        parts = [TopicPartition(self._topic, position.partition, position.next_offset) for position in due]
        self._consumer.incremental_assign(parts)
        self._next_polled |= {position.partition: position.next_offset for position in due}
        self.assignment = self.assignment.holding(due)

    def _release(self, positions: Sequence[Position]) -> None:
        for position in positions:
            if self.assignment.halted_at.get(position.partition) is position:
                self.assignment = self.assignment.looking_up(position.partition)
                log.info("partition_released", partition=position.partition)

    def _poll(self, records_max: int, wait_seconds: float) -> list[Record]:
        message = self._consumer.poll(wait_seconds)
        if self._refusal:
            # The next client reads the certificates and the secrets again.
            raise MembershipEndedError(self._refusal)
        if message is None:
            return []
        # Messages get their positions before the next call, which may serve a rebalance.
        records = self._stamped([message])
        if records_max > 1:
            records += self._stamped(self._consumer.consume(records_max - 1, timeout=0))
        return records

    def _stamped(self, messages: Sequence[Message]) -> list[Record]:
        records = []
        for message in messages:
            error, partition = message.error(), message.partition()
            position = None if partition is None else self.assignment.held.get(partition)
            if error is None and position is not None:
                record = record_of(message, position)
            elif error is not None and error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                self._has_received = True
                if position is None or (message.offset() or 0) <= self._next_polled[position.partition]:
                    continue
                record = end_of(message, position)
            else:
                if error is not None:
                    self._on_error(error, position, message)
                continue
            self._next_polled[position.partition] = record.offset + 1
            records.append(record)
        if records:
            self._has_received, self._brokers_down = True, ""
        return records

    def _on_error(self, error: KafkaError, position: Position | None, message: Message) -> None:
        if error.code() in _OUT_OF_RANGE:
            if position is not None:
                self._on_out_of_range(position, message.offset())
            return
        if error.code() == KafkaError.INVALID_SESSION_TIMEOUT:
            raise MembershipEndedError(session_refused(self._session_seconds))
        log.warning("kafka_consumer_error", partition=message.partition(), code=error.name(), error=error.str())
        if error.fatal() or error.code() not in PASSING:
            raise KafkaException(error)

    def _on_out_of_range(self, position: Position, offset: int | None) -> None:
        # librdkafka gives this error no version (rd_kafka_offset_reset). The error of an earlier assignment's fetch may
        # come late, and has then stopped the fetching of this one.
        if offset is None or offset == self._next_polled[position.partition]:
            self._halt(position, out_of_range(self._topic, position))
            return
        log.warning("partition_read_again", partition=position.partition, refused_offset=offset)
        self._consumer.incremental_unassign([TopicPartition(self._topic, position.partition)])
        self.assignment = self.assignment.looking_up(position.partition)

    def _halt(self, position: Position, why: str) -> None:
        if not self.assignment.has(position):
            return
        if position.partition in self.assignment.held:
            self._consumer.incremental_unassign([TopicPartition(self._topic, position.partition)])
        self.assignment = self.assignment.halting(position, why)
        log.error("partition_halted", partition=position.partition, why=why)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.assignment = self.assignment.given([part.partition for part in partitions])
        consumer.incremental_assign([])
        # A rebalance may give nothing although partitions are free, say while their last owner revokes them.
        if partitions:
            self._is_joined = True
            self._log_partitions("partitions_given", [part.partition for part in partitions])

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._no_write.wait(self._write_seconds_max)
        self._remove(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._is_joined = self._has_received = False
        self._remove(consumer, partitions)

    def _remove(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        removed = [part.partition for part in partitions]
        read = [partition for partition in removed if partition in self.assignment.held]
        self.assignment = self.assignment.without(removed)
        if not self._has_received and self.assignment == Assignment():
            self._is_joined = False
        consumer.incremental_unassign([TopicPartition(self._topic, partition) for partition in read])
        self._log_partitions("partitions_taken", removed)

    def _log_partitions(self, event: str, partitions: list[int]) -> None:
        if not self._callbacks.is_silenced:
            log.info(event, partitions=sorted(partitions))

    def _on_client_error(self, error: KafkaError) -> None:
        log.warning("kafka_client_error", code=error.name(), error=error.str(), fatal=error.fatal())
        if is_login_refused(error):
            count_refusal(error)
            self._refusal = explained(error)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001
            self._brokers_down = f"{error.str()}{self._last_error}"
        else:
            self._last_error = f": {kafka_explained(error, self._group, self._topic)}"
