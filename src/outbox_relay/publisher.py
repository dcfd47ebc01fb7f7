"""Sends a batch to Kafka and waits for every delivery report."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import orjson
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from common.events.headers import cloud_event_headers
from common.kafka.callbacks import ClientCallbacks
from common.kafka.clients import client_config
from common.kafka.refusals import count_refusal, explained, is_login_refused
from common.kafka.topic_settings import BATCH_BYTES_MAX
from common.rate_limited_logs import RateLimiter
from outbox_relay.outcomes import Published, Refused, Report, Undelivered
from outbox_relay.queries import PendingRow
from outbox_relay.settings import RelaySettings

log = structlog.get_logger()
_limiter = RateLimiter()

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
    """The broker doesn't answer, or refuses the relay."""


class Publisher:
    """One idempotent producer for one batch at a time. Its methods block: call them from a thread."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self.batch_bytes_max = BATCH_BYTES_MAX
        """The largest batch of records. May be set at any time, from any thread."""
        # Why a broker refuses the connection, why no delivery report comes, and the last one that tells of an error.
        self._refusal = self._why = ""
        self._delivery_error: KafkaError | None = None
        # After it the producer delivers nothing more.
        self._fatal_error: KafkaError | None = None
        self._callbacks = ClientCallbacks(self._on_error)
        self._make_producer(self._config())

    def ping(self) -> None:
        """Ask the broker for the topic.

        Raises:
            BrokerAwayError: no answer within 5 seconds, a refusal, or no such topic.
        """
        topic = self._settings.kafka_topic
        try:
            self._replace_if_stale()
        except KafkaException as error:
            raise BrokerAwayError(explained(error.args[0])) from error
        try:
            found = self._producer.list_topics(topic, timeout=_PING_TIMEOUT_SECONDS).topics[topic]
        except KafkaException as error:
            # The producer's own errors say why.
            with self._fatal_errors_noted():
                self._producer.poll(0)
            # A new producer reads the certificates and the secrets again.
            self._is_spent |= bool(self._refusal)
            raise BrokerAwayError(self._refusal or explained(error.args[0])) from error
        self._refusal = ""
        if found.error is not None:
            raise BrokerAwayError(f"topic {topic}: {explained(found.error)}")

    def publish(self, rows: Sequence[PendingRow]) -> dict[int, Report]:
        """Send the rows in order, wait for their delivery reports, and return these by row id.

        A broker refuses a whole batch of records for one bad record in it. Refused rows are sent again in halves, until
        each bad record is refused alone: k bad ones among n rows cost about k·log n sends. With a refused row go the
        later rows of its aggregate, so that the aggregate's last records are in order. After a row is refused for
        good, the later rows of its aggregate are not sent and have no report.

        Returns within the delivery timeout and `PUBLISH_MARGIN_SECONDS`. Rows for which there was no time have no
        report either. A row that was sent without an answer from the broker is Undelivered, and never sent later.
        """
        try:
            self._replace_if_stale()
        except KafkaException as error:
            return {row.id: Undelivered(explained(error.args[0])) for row in rows}
        deadline = time.monotonic() + self._settings.relay_delivery_timeout_seconds + _FLUSH_MARGIN_SECONDS
        reports: dict[int, Report] = {}
        refused: set[str] = set()
        groups: list[Sequence[PendingRow]] = [rows]
        while groups and time.monotonic() < deadline - _FLUSH_MARGIN_SECONDS and not _has_undelivered(reports):
            group = [row for row in groups.pop() if row.aggregate_id not in refused]
            delivered = self._send(group, refused, reports, deadline)
            suspects = _refused_and_behind(group, delivered) if len(group) > 1 else []
            for row in suspects:
                del delivered[row.id]
            reports |= delivered
            refused |= {row.aggregate_id for row in group if isinstance(reports.get(row.id), Refused)}
            groups += reversed(_halves(suspects))
        if self._is_spent or _has_undelivered(reports):
            # After a fatal error the delivery reports say only that the records were purged.
            if cause := self._fatal_error or self._delivery_error:
                count_refusal(cause)
            self._empty()
        return reports

    def close(self) -> None:
        """Discard what is still in flight, within 2 seconds. Rows that were not settled are pending."""
        self._empty()

    def _config(self) -> dict[str, Any]:
        return client_config(
            self._settings.kafka,
            "outbox-relay",
            **{
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": self._settings.kafka_compression,
                # The Java client's partitioner.
                "partitioner": "murmur2_random",
                "delivery.timeout.ms": round(self._settings.relay_delivery_timeout_seconds * 1000),
                # Until flush(), which sends at once, a batch may fill.
                "linger.ms": 50,
                # A batch that the topic takes uncompressed it takes compressed: only single records can be too large.
                "batch.size": self.batch_bytes_max,
                "queue.buffering.max.messages": 100_000,
            },
        )

    def _make_producer(self, config: dict[str, Any]) -> None:
        callbacks = ClientCallbacks(self._on_error, self._on_fatal_error)
        producer = Producer({**config, **callbacks.properties()})
        self._callbacks.silence()
        self._producer, self._callbacks, self._made_with = producer, callbacks, config
        self._is_spent, self._refusal, self._why = False, "", "no delivery report in time"
        self._delivery_error = self._fatal_error = None

    def _on_error(self, error: KafkaError) -> None:
        if is_login_refused(error):
            self._refusal = explained(error)
            count_refusal(error)
        self._why = self._refusal or str(error)
        if (suppressed := _limiter.admit(error.name())) is not None:
            log.warning("kafka_error", error=explained(error), suppressed=suppressed)

    def _on_fatal_error(self, error: KafkaError) -> None:
        self._fatal_error, self._is_spent = error, True
        log.warning("producer_failed", error=explained(error))

    def _send(
        self, rows: Sequence[PendingRow], refused: set[str], reports: dict[int, Report], deadline: float
    ) -> dict[int, Report]:
        """Send rows together; return the broker's reports. Add the client's own to `reports` and `refused`."""
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
        with self._fatal_errors_noted():
            self._producer.flush(max(0.0, deadline - time.monotonic()))
        return {row.id: self._report(delivered.get(row.id)) for row in sent}

    def _report(self, delivered: Report | None) -> Report:
        """Return the report; of a row that was not delivered because the connection or the producer failed, why."""
        if delivered is None or (isinstance(delivered, Undelivered) and self._failure):
            return Undelivered(self._failure or self._why)
        return delivered

    @property
    def _failure(self) -> str:
        """Why a broker refuses the connection, or why the producer failed; empty if neither happened."""
        return self._refusal or (explained(self._fatal_error) if self._fatal_error else "")

    @contextmanager
    def _fatal_errors_noted(self) -> Iterator[None]:
        """After a fatal error, mark the producer as spent; rows without its report are Undelivered."""
        try:
            yield
        except (KafkaException, SystemError) as error:
            # confluent-kafka sets the error inside a call that returns a result: Python raises a SystemError for that.
            # Another callback may have cleared the error. The client has told why before (`_on_fatal_error`).
            self._is_spent, self._why = True, str(error.__cause__ or error)

    def _produce(self, row: PendingRow, delivered: dict[int, Report], deadline: float) -> Report | None:
        """Queue the row; return None, or why it could not be queued."""
        extensions = orjson.loads(row.headers) if row.headers else {}
        headers = cloud_event_headers(
            row.event_id, row.event_type, row.aggregate_id, row.created_at, row.source_epoch, extensions
        )
        on_delivery = partial(self._note_report, delivered, row.id)
        while not self._is_spent and time.monotonic() < deadline:
            try:
                self._producer.produce(
                    self._settings.kafka_topic, row.payload, row.aggregate_id, on_delivery=on_delivery, headers=headers
                )
            except BufferError:
                # The local queue is full: wait until it has room for this row.
                with self._fatal_errors_noted():
                    self._producer.poll(0.1)
                continue
            except KafkaException as error:
                self._delivery_error = error.args[0]
                self._await_reason(error.args[0], deadline)
                return self._report(_report_of(error.args[0]))
            return None
        return self._report(None)

    def _await_reason(self, error: KafkaError, deadline: float) -> None:
        """After a fatal error the client takes no more rows, and may tell why only a moment later."""
        while error.code() == KafkaError._FATAL and not self._fatal_error and time.monotonic() < deadline:  # noqa: SLF001
            with self._fatal_errors_noted():
                self._producer.poll(0.1)

    def _note_report(self, reports: dict[int, Report], row_id: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._delivery_error = error
            reports[row_id] = _report_of(error)
            return
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        reports[row_id] = Published(partition, offset)

    def _empty(self) -> None:
        """Discard all that the producer holds. It is replaced at its next use: ending a producer may take long."""
        self._is_spent = True
        self._callbacks.silence()
        self._producer.purge(in_queue=True, in_flight=True, blocking=True)
        with suppress(KafkaException, SystemError):
            self._producer.flush(_FLUSH_MARGIN_SECONDS)

    def _replace_if_stale(self) -> None:
        """Make a new producer if this one is spent, or if the batch size or a secret has changed.

        Raises:
            KafkaException: the producer is spent, and a file with a secret, a certificate or properties is wrong.
        """
        try:
            config = self._config()
            if self._is_spent or config != self._made_with:
                self._make_producer(config)
        except KafkaException:
            # A file that is wrong now does not stop a producer that works.
            if self._is_spent:
                raise


def _has_undelivered(reports: Mapping[int, Report]) -> bool:
    return any(isinstance(report, Undelivered) for report in reports.values())


def _refused_and_behind(rows: Sequence[PendingRow], delivered: Mapping[int, Report]) -> list[PendingRow]:
    """Return the refused rows, and with each the later delivered rows of its aggregate."""
    aggregates: set[str] = set()
    suspects = []
    for row in rows:
        if isinstance(delivered.get(row.id), Refused):
            aggregates.add(row.aggregate_id)
        if row.aggregate_id in aggregates and row.id in delivered:
            suspects.append(row)
    return suspects


def _halves(rows: Sequence[PendingRow]) -> list[Sequence[PendingRow]]:
    middle = (len(rows) + 1) // 2
    return [half for half in (rows[:middle], rows[middle:]) if half]


def _report_of(error: KafkaError) -> Report:
    return Refused(str(error)) if error.code() in _POISON else Undelivered(explained(error))
