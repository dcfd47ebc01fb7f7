"""The topic's records, reduced to what the audit compares."""

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from confluent_kafka import Message

from common.events.headers import FIRST_SOURCE_EPOCH, SOURCE_EPOCH_HEADER
from common.kafka.topic_reader import TopicReader
from common.progress import Advance
from history_consumer.consumer.records import headers_of, source_epoch_of

BLOCK_BITS: Final = 10
"""A block has 1,024 offsets. `sum_queries.RECORD_SUMS` has them too."""

_HASH_BYTES: Final = 8
_FIRST_EPOCH: Final = str(FIRST_SOURCE_EPOCH).encode()


class Block(NamedTuple):
    """Neighbouring offsets of a partition, whose records are compared as one.

    `number` is None for all records of the partition that the topic no longer keeps.
    """

    partition: int
    number: int | None


class BlockSum(NamedTuple):
    """How many records a block has, and the sum of their hashes."""

    row_count: int = 0
    records: int = 0


@dataclass(frozen=True, slots=True)
class Ranges:
    """The first offset to read and the one after the last, by partition."""

    begins: Mapping[int, int]
    ends: Mapping[int, int]


class TopicRecord(NamedTuple):
    """Where a record is, its `ce_id`, source epoch and key, and the SHA-256 of its value.

    The source epoch is 0 where the header is not a number.
    """

    partition: int
    offset: int
    event_id: str | None
    source_epoch: int
    key: str | None
    digest: str


async def topic_records(
    topic: TopicReader, begins: Mapping[int, int], ends: Mapping[int, int]
) -> AsyncGenerator[TopicRecord, None]:
    """Yield the records of each partition from its begin to before its end, by partition and offset.

    Raises:
        TimeoutError: the broker went away.
    """
    chunks = topic.messages(begins, ends)
    async with aclosing(chunks):
        async for messages in chunks:
            for message in messages:
                yield _topic_record(message)


async def block_sums(topic: TopicReader, ranges: Ranges, advance: Advance) -> Mapping[Block, BlockSum]:
    """Return the sums of the topic's records. All partitions are read at once.

    Raises:
        TimeoutError: the broker went away.
    """
    sums: dict[tuple[int, int], list[int]] = {}
    chunks = topic.interleaved_messages(ranges.begins, ranges.ends)
    async with aclosing(chunks):
        async for messages in chunks:
            for message in messages:
                partition, offset = message.partition() or 0, message.offset() or 0
                block = sums.setdefault((partition, offset >> BLOCK_BITS), [0, 0])
                block[0] += 1
                block[1] += _hash_of(message, offset)
            advance(len(messages))
    return {Block(*block): BlockSum(*counted) for block, counted in sums.items()}


def _hash_of(message: Message, offset: int) -> int:
    """Return the first 64 bits of the SHA-256 of what the outbox knows of a record.

    A record with a header twice gets a hash of its own, since consumers may read either.
    """
    headers = headers_of(message)
    by_name: Mapping[str, Any] = dict(headers)
    known = b"%d %b %b %b %b" % (
        *(offset, by_name.get("ce_id") or b"", by_name.get(SOURCE_EPOCH_HEADER, _FIRST_EPOCH) or b""),
        *(message.key() or b"", message.value() or b""),
    )
    if len(by_name) != len(headers):
        known += b" and a header twice"
    return int.from_bytes(hashlib.sha256(known).digest()[:_HASH_BYTES], signed=True)


def _topic_record(message: Message) -> TopicRecord:
    headers = headers_of(message)
    event_id: Any = dict(headers).get("ce_id")
    key = message.key()
    return TopicRecord(
        message.partition() or 0,
        message.offset() or 0,
        event_id and event_id.decode(errors="replace"),
        source_epoch_of(headers),
        None if key is None else bytes(key).decode(errors="replace"),
        hashlib.sha256(message.value() or b"").hexdigest(),
    )
