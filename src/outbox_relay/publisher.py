"""Sending a batch to Kafka and waiting for every delivery report."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import orjson
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from common.events import cloud_event_headers
from common.kafka.clients import client_config
from common.kafka.topic_settings import BATCH_BYTES_MAX
from outbox_relay.outcomes import Published, Refused, Report, Undelivered
from outbox_relay.queries import PendingRow
from outbox_relay.settings import RelaySettings

log = structlog.get_logger()

_POISON: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
    }
)
_FLUSH_MARGIN_SECONDS: Final = 2.0
_PING_TIMEOUT_SECONDS: Final = 5.0

PUBLISH_MARGIN_SECONDS: Final = 2 * _FLUSH_MARGIN_SECONDS
"""How long `publish` may take beyond the delivery timeout: for the last reports, and for emptying the producer."""


class BrokerAwayError(Exception):
    """The broker doesn't answer."""


class Publisher:
    """One idempotent producer for one batch at a time. Blocking: call it from a thread."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self.batch_bytes_max = BATCH_BYTES_MAX
        """May be set at any time, from any thread."""
        self._producer = self._new_producer()

    def _new_producer(self) -> Producer:
        self._is_spent, self._batch_bytes = False, self.batch_bytes_max
        self._why = "no delivery report in time"
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
                # What fits the topic uncompressed fits it compressed: only a record too large by itself is refused.
                "batch.size": self._batch_bytes,
                "queue.buffering.max.messages": 100_000,
                "error_cb": self._on_error,
            },
        )
        return Producer(config)

    def _on_error(self, error: KafkaError) -> None:
        self._why = str(error)
        log.warning("kafka_error", error=str(error))

    def ping(self) -> None:
        """Ask the broker for the topic.

        Raises:
            BrokerAwayError: no answer within 5 seconds, or no such topic.
        """
        self._replace_if_spent()
        topic = self._settings.kafka_topic
        try:
            found = self._producer.list_topics(topic, timeout=_PING_TIMEOUT_SECONDS).topics[topic]
        except KafkaException as error:
            raise BrokerAwayError(str(error.args[0])) from error
        if found.error is not None:
            raise BrokerAwayError(f"topic {topic}: {found.error}")

    def publish(self, rows: Sequence[PendingRow]) -> dict[int, Report]:
        """Send the rows in order, wait for all reports, and return them by row id.

        A broker refuses a whole batch of records for one bad record in it. What it refuses is sent again in halves,
        until each bad record is refused alone: k bad ones among n rows cost about k·log n sends. Later rows of the same
        aggregate go along, so that an aggregate's last records are in order. Behind a row that is refused for good
        the aggregate's later rows are not sent, and have no report.

        Returns within the delivery timeout and `PUBLISH_MARGIN_SECONDS`. What there was no time for has no report
        either. What was sent, and of which the broker said nothing, is Undelivered, and never sent later.
        """
        self._replace_if_spent()
        deadline = time.monotonic() + self._settings.relay_delivery_timeout_seconds + _FLUSH_MARGIN_SECONDS
        reports: dict[int, Report] = {}
        refused: set[str] = set()
        groups: list[Sequence[PendingRow]] = [rows]
        while groups and time.monotonic() < deadline - _FLUSH_MARGIN_SECONDS and not _has_undelivered(reports):
            group = [row for row in groups.pop() if row.aggregate_id not in refused]
            delivered = self._send(group, refused, reports, deadline)
            suspects = _refused_and_behind(group, delivered) if len(group) > 1 else []
            reports |= delivered
            for row in suspects:
                del reports[row.id]
            refused |= {row.aggregate_id for row in group if isinstance(reports.get(row.id), Refused)}
            middle = (len(suspects) + 1) // 2
            groups += [half for half in (suspects[middle:], suspects[:middle]) if half]
        if self._is_spent or _has_undelivered(reports):
            self._empty()
        return reports

    def _send(
        self, rows: Sequence[PendingRow], refused: set[str], reports: dict[int, Report], deadline: float
    ) -> dict[int, Report]:
        """Send rows together; return the broker's reports, and put what the producer says itself into the others."""
        delivered: dict[int, Report] = {}
        sent: list[PendingRow] = []
        for row in rows:
            if row.aggregate_id in refused:
                continue
            refusal = self._produce(row, delivered, deadline)
            if refusal is None:
                sent.append(row)
                continue
            reports[row.id] = refusal
            if isinstance(refusal, Undelivered):
                break
            refused.add(row.aggregate_id)
        with self._fatal_told():
            self._producer.flush(max(0.0, deadline - time.monotonic()))
        return {row.id: delivered.get(row.id) or Undelivered(self._why) for row in sent}

    @contextmanager
    def _fatal_told(self) -> Iterator[None]:
        """Note that the producer is of no use any more; what has no report from it is Undelivered."""
        try:
            yield
        except (KafkaException, SystemError) as error:
            # The client sets a fatal error in the middle of a call that then returns, which Python calls a SystemError.
            self._is_spent, self._why = True, str(error.__cause__ or error)
            log.warning("producer_failed", error=self._why)

    def _produce(self, row: PendingRow, delivered: dict[int, Report], deadline: float) -> Report | None:
        """Queue the row; return why it couldn't be."""
        extensions = orjson.loads(row.headers) if row.headers else {}
        headers = cloud_event_headers(
            row.event_id, row.event_type, row.aggregate_id, row.created_at, row.source_epoch, extensions
        )
        on_delivery = partial(_report, delivered, row.id)
        while not self._is_spent and time.monotonic() < deadline:
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
                return _report_of(error.args[0])
            return None
        return Undelivered(self._why)

    def _empty(self) -> None:
        """Forget all that the producer still holds. The next one takes its place later: to end one may take long."""
        self._is_spent = True
        self._producer.purge(in_queue=True, in_flight=True, blocking=True)
        with self._fatal_told():
            self._producer.flush(_FLUSH_MARGIN_SECONDS)

    def close(self) -> None:
        """Give up what is still in hand, within 2 seconds; what was not settled is pending."""
        self._empty()

    def _replace_if_spent(self) -> None:
        if self._is_spent or self._batch_bytes != self.batch_bytes_max:
            self._producer = self._new_producer()


def _has_undelivered(reports: Mapping[int, Report]) -> bool:
    return any(isinstance(report, Undelivered) for report in reports.values())


def _refused_and_behind(rows: Sequence[PendingRow], delivered: Mapping[int, Report]) -> list[PendingRow]:
    """Return what was refused with its neighbours, and the later rows of the same aggregates."""
    aggregates: set[str] = set()
    found = []
    for row in rows:
        if isinstance(delivered.get(row.id), Refused):
            aggregates.add(row.aggregate_id)
        if row.aggregate_id in aggregates and row.id in delivered:
            found.append(row)
    return found


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
