"""A record of the topic, and what it means."""

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from confluent_kafka import Message

from common.events.headers import FIRST_SOURCE_EPOCH, SOURCE_EPOCH_HEADER
from history_consumer.consumer.positions import Position
from history_consumer.projection import HistoryRow, PoisonError, rows_of

Headers = Sequence[tuple[str, bytes | None]]

_EPOCH: Final = re.compile(rb"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Poison:
    """Why a record can't be applied: a stable code and a sentence."""

    reason: str
    detail: str


@dataclass(slots=True)
class Record:
    """One record of the topic. Not frozen: making a frozen one takes a microsecond more.

    Args:
        position: the partition's position under which the record was read.
        offset: in its partition.
        key: as it was published.
        value: as it was published; None is a tombstone.
        content: the history rows that the value asks for, or why it can't be applied.
        read_headers: reads the headers. Called only when they are needed: reading a client message's headers
            takes 4 µs, a sixth of reading the record.
    """

    position: Position
    offset: int
    key: bytes | None
    value: bytes | None
    content: tuple[HistoryRow, ...] | Poison
    read_headers: Callable[[], Any]

    @property
    def headers(self) -> Headers:
        """Return the headers."""
        return _read(self.read_headers)

    @property
    def source_epoch(self) -> int:
        """Return the source epoch in which the record was published."""
        return source_epoch_of(self.headers)

    @property
    def rows(self) -> tuple[HistoryRow, ...]:
        """The rows that the record asks for; none, if it can't be applied."""
        return () if isinstance(self.content, Poison) else self.content

    @property
    def is_event(self) -> bool:
        """Whether it is an event, and neither poison nor a partition's end."""
        return bool(self.content) and not isinstance(self.content, Poison)

    @property
    def is_ahead(self) -> bool:
        """Whether it is an event of an epoch with which the history isn't in line yet."""
        return self.is_event and self.source_epoch > self.position.source_epoch

    @property
    def is_of_other_epoch(self) -> bool:
        """Whether it is of another epoch than the history's. A history of the first epoch takes all: none is older."""
        ours = self.position.source_epoch
        return False if ours == FIRST_SOURCE_EPOCH else self.source_epoch != ours

    @property
    def partition(self) -> int:
        """Return the record's partition."""
        return self.position.partition

    def log_fields(self) -> dict[str, Any]:
        """Return what a log line about this record names; `traceparent` as W3C Trace Context has it."""
        fields: dict[str, Any] = {"partition": self.partition, "offset": self.offset}
        for name, value in self.headers:
            if name == "traceparent":
                fields["traceparent"] = readable(value)
        return fields


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that can't be applied, and why."""

    record: Record
    poison: Poison


def record_of(message: Message, position: Position) -> Record:
    """Return the record that the client's message carries, whatever is in it."""
    value = message.value()
    return Record(position, message.offset() or 0, message.key(), value, _content_of(value), message.headers)


def stored_record(
    value: bytes | None, position: Position, *, key: bytes | None = None, headers: Headers = ()
) -> Record:
    """Return the record whose parts PostgreSQL keeps; its offset is the position's.

    Args:
        value: of the record, or the event that an outbox row or a ledger entry tells of.
        position: where the record lies in the topic.
        key: of the record.
        headers: of the record.
    """
    return Record(position, position.next_offset, key, value, _content_of(value), lambda: headers)


def end_of(message: Message, position: Position) -> Record:
    """Return a partition's end, which lies after transaction markers or a hole, as a record without rows.

    Its offset is the last one before the end. Applied, it moves the position there: no event would.

    Args:
        message: the client's end-of-partition message; its offset is the one that the next record gets.
        position: the partition's position under which the end was read.
    """
    return Record(position, (message.offset() or 0) - 1, None, None, (), tuple)


def source_epoch_of(headers: Headers) -> int:
    """Return the source epoch that a record's headers name: 1 without the header, 0 if it isn't an epoch."""
    for name, value in headers:
        if name == SOURCE_EPOCH_HEADER:
            return int(value) if value and _EPOCH.fullmatch(value) else 0
    return FIRST_SOURCE_EPOCH


def headers_of(message: Message) -> Headers:
    """Return the headers of a client's message."""
    return _read(message.headers)


def headers_json(headers: Headers) -> str:
    """Return the headers as a JSON list of `[name, value]`: text, null, or `{"base64": …}` where it isn't UTF-8."""
    return orjson.dumps([[name, readable(value)] for name, value in headers]).decode()


def readable(value: bytes | None) -> Any:
    """Return bytes as JSON shows them best: text, null, or `{"base64": …}` where they aren't UTF-8."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _content_of(value: bytes | None) -> tuple[HistoryRow, ...] | Poison:
    try:
        return rows_of(value)
    except PoisonError as error:
        return Poison(error.reason, error.detail)


def _read(headers: Callable[[], Any]) -> Headers:
    try:
        return headers() or ()
    except (UnicodeError, SystemError):  # a name that is not UTF-8, which the client can't return
        return ()
