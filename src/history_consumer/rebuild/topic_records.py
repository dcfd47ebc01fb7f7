"""The topic's messages as the records that the consumer would apply. Pure."""

from collections.abc import Iterable

from confluent_kafka import Message

from common.events.headers import FIRST_SOURCE_EPOCH
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import Record, record_of


def topic_records(messages: Iterable[Message], topic_id: str, source_epoch: int = FIRST_SOURCE_EPOCH) -> list[Record]:
    """Return a record for each message.

    Args:
        messages: as the client returned them.
        topic_id: the id of the topic.
        source_epoch: the epoch with which the history that takes these records is in line.
    """
    return [
        record_of(message, Position(message.partition() or 0, message.offset() or 0, topic_id, source_epoch))
        for message in messages
    ]
