"""Sending a batch to Kafka and waiting for every delivery report."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import orjson
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from common.events import cloud_event_headers
from common.kafka import client_config
from outbox_relay.outcomes import Published, Refused, Report, Undelivered
from outbox_relay.queries import OutboxRow
from outbox_relay.settings import RelaySettings

log = structlog.get_logger()

_POISON: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
    }
)
_FLUSH_MARGIN_SECONDS: Final = 2.0
_PING_TIMEOUT_SECONDS: Final = 5.0


class BrokerAwayError(Exception):
    """The broker doesn't answer."""


class Publisher:
    """One idempotent producer for one batch at a time. Blocking: call it from a thread."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._is_fatal = False
        self._producer = self._new_producer()

    def _new_producer(self) -> Producer:
        self._is_fatal = False
        config = client_config(
            self._settings.kafka_bootstrap_servers,
            "outbox-relay",
            **{
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": self._settings.kafka_compression,
                # Keys go where the Java client would put them.
                "partitioner": "murmur2_random",
                "delivery.timeout.ms": round(self._settings.relay_delivery_timeout_seconds * 1000),
                # flush() sends at once; until then a batch may fill.
                "linger.ms": 50,
                "batch.size": 1_000_000,
                "queue.buffering.max.messages": 100_000,
                "error_cb": self._on_error,
            },
        )
        return Producer(config)

    def _on_error(self, error: KafkaError) -> None:
        log.warning("kafka_error", error=str(error))

    def ping(self) -> None:
        """Ask the broker for the topic.

        Raises:
            BrokerAwayError: no answer within 5 seconds, or no such topic.
        """
        topic = self._settings.kafka_topic
        try:
            found = self._producer.list_topics(topic, timeout=_PING_TIMEOUT_SECONDS).topics[topic]
        except KafkaException as error:
            raise BrokerAwayError(str(error.args[0])) from error
        if found.error is not None:
            raise BrokerAwayError(f"topic {topic}: {found.error}")

    def publish(self, rows: Sequence[OutboxRow]) -> dict[int, Report]:
        """Send the rows in order, wait for all reports, and return them by row id.

        Rows of an aggregate behind one that the producer itself refuses are not sent and have no report.

        A broker refuses a whole batch of records for one bad record in it: what was refused is sent again one
        by one, so that only the bad one is left with a refusal. Returns within the delivery timeout and a
        margin; what has no report by then is Undelivered, and never sent later: the producer is replaced.
        """
        reports = self._send(rows)
        if len(rows) > 1:
            refused = [row for row in rows if isinstance(reports.get(row.id), Refused)]
            reports |= self._send_singly(refused)
        if self._is_fatal or any(isinstance(report, Undelivered) for report in reports.values()):
            self.replace()
        return reports

    def _send_singly(self, rows: Sequence[OutboxRow]) -> dict[int, Report]:
        """Send one row after the other; with the broker away, wait for one of them and not for each."""
        reports: dict[int, Report] = {}
        for row in rows:
            reports |= self._send([row])
            if isinstance(reports[row.id], Undelivered):
                return {other.id: reports.get(other.id, reports[row.id]) for other in rows}
        return reports

    def _send(self, rows: Sequence[OutboxRow]) -> dict[int, Report]:
        reports: dict[int, Report] = {}
        sent: list[OutboxRow] = []
        held_up: set[str] = set()
        for row in rows:
            if row.aggregate_id in held_up:
                continue
            self._produce(row, reports)
            sent.append(row)
            if isinstance(reports.get(row.id), Refused):
                held_up.add(row.aggregate_id)
        with self._fatal_told():
            self._producer.flush(self._settings.relay_delivery_timeout_seconds + _FLUSH_MARGIN_SECONDS)
        return {row.id: reports.get(row.id) or Undelivered("no delivery report in time") for row in sent}

    @contextmanager
    def _fatal_told(self) -> Iterator[None]:
        """Note that the producer is of no use any more; what has no report from it is Undelivered."""
        try:
            yield
        except (KafkaException, SystemError) as error:
            # The client sets a fatal error in the middle of a call that then returns, which Python calls a SystemError.
            self._is_fatal = True
            log.warning("producer_failed", error=str(error.__cause__ or error))

    def _produce(self, row: OutboxRow, reports: dict[int, Report]) -> None:
        extensions = orjson.loads(row.headers) if row.headers else {}
        headers = cloud_event_headers(
            row.event_id, row.event_type, row.aggregate_id, row.created_at, row.source_epoch, extensions
        )
        on_delivery = partial(_report, reports, row.id)
        while True:
            try:
                self._producer.produce(
                    self._settings.kafka_topic, row.payload, row.aggregate_id, on_delivery=on_delivery, headers=headers
                )
            except BufferError:
                # The local queue is full: the same row again once there is room.
                with self._fatal_told():
                    self._producer.poll(0.1)
                continue
            except KafkaException as error:
                reports[row.id] = _report_of(error.args[0])
            return

    def replace(self) -> None:
        """Throw the producer away with all it still holds, and take a new one."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=True)
        with self._fatal_told():
            self._producer.flush(_FLUSH_MARGIN_SECONDS)
        self._producer = self._new_producer()


def _report(reports: dict[int, Report], row_id: int, error: KafkaError | None, message: Message) -> None:
    if error is not None:
        reports[row_id] = _report_of(error)
        return
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    reports[row_id] = Published(partition, offset)


def _report_of(error: KafkaError) -> Report:
    return Refused(str(error)) if error.code() in _POISON else Undelivered(str(error))
