"""The topic's records, reduced to what the audit compares."""

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

from confluent_kafka import Message

from common.kafka.topic_reader import TopicReader
from history_consumer.consumer.records import headers_of, source_epoch_of


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
