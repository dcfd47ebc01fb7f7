"""Which of the given partitions are read, and which are halted until an operator acts."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple

import structlog

from common.events.headers import FIRST_SOURCE_EPOCH
from history_consumer.consumer.failures import recreated, restored
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import Record
from history_consumer.consumer.subscription import Subscription

log = structlog.get_logger()


async def start(subscription: Subscription, topic: str, topic_id: str, positions: Sequence[Position]) -> None:
    """Read the partitions at their stored positions, and halt those that can't go on from there.

    Args:
        subscription: the membership to which the group gave the partitions.
        topic: the topic's name.
        topic_id: the topic's id at the last look.
        positions: as the database has them.
    """
    readable = []
    for position in positions:
        if position.topic_id != topic_id:
            await subscription.halt(position, recreated(topic, position, topic_id))
        elif position.source_epoch < FIRST_SOURCE_EPOCH:
            await subscription.halt(position, restored(topic))
        else:
            readable.append(position)
    await subscription.read(readable)
    log.info("partitions_read", offsets={position.partition: position.next_offset for position in readable})


async def halt_recreated(subscription: Subscription, topic: str, topic_id: str) -> None:
    """Halt the partitions that were read from a topic of the same name and another id."""
    for position in subscription.assignment.held.values():
        if position.topic_id != topic_id:
            await subscription.halt(position, recreated(topic, position, topic_id))


async def halt_ahead(subscription: Subscription, topic: str, records: Sequence[Record]) -> None:
    """Halt before events of a source epoch with which the history isn't in line: they use versions again.

    Epochs only rise along a partition, so its last event tells of the batch. A relay on an abandoned database may break
    this; the rebuild that the next batch asks for removes what that relay published.
    """
    last = {record.partition: record for record in records if record.is_event}
    for record in last.values():
        if record.is_ahead and subscription.assignment.held.get(record.partition) is record.position:
            await subscription.halt(record.position, restored(topic))


async def release_moved(
    subscription: Subscription, halted_at: Mapping[int, Position], stored: Sequence[Position]
) -> None:
    """Start halted partitions again whose stored position has changed: an operator has acted.

    Args:
        subscription: the membership that halted them.
        halted_at: where the partitions stood when they were halted.
        stored: where the database has them now.
    """
    now = {position.partition: astuple(position) for position in stored}
    moved = [then for partition, then in halted_at.items() if now.get(partition) != astuple(then)]
    if moved:
        await subscription.release(moved)
