"""After the wallet database was restored to an earlier time: a new epoch, and what the old one has lost.

The runbook is docs/restore.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from common.actor import actor
from common.kafka.topic_reader import TopicReader, open_topic
from common.postgres.engine import operator_engine
from common.settings import PipelineSettings
from history_consumer.consumer.records import Poison, Record
from history_consumer.rebuild.topic_records import topic_records
from outbox_relay.operations.replay import leased
from walletctl.console import progress_bar
from walletctl.restore import queries
from walletctl.settings import LostSettings, RestoreSettings

_LAST_RECORDS: Final = 100


@dataclass(frozen=True, slots=True)
class EpochStart:
    """A new epoch.

    Args:
        epoch: its number.
        pending: how many events the database had still to publish; they go out in the new epoch.
        topic_ends: where the topic ended, by partition.
    """

    epoch: int
    pending: int
    topic_ends: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class LostEvent:
    """An event of the topic of which the wallet database knows nothing; `data` is its JSON, as it came."""

    id: UUID
    partition: int
    offset: int
    source_epoch: int
    data: str


@dataclass
class LossReport:
    """What the topic has and the database hasn't: how many events, and the first of them."""

    count: int = 0
    events: list[LostEvent] = field(default_factory=list)


async def begin(settings: RestoreSettings | PipelineSettings, reason: str | None) -> EpochStart:
    """Raise the epoch above all that the database, the history or the topic know, and stop the history.

    Safe to repeat, and while services run: each event that they write belongs to the one epoch or the other.

    Raises:
        TimeoutError: Kafka is away; nothing was done.
        sqlalchemy.exc.DBAPIError: a database is away or refuses; nothing was done, unless the wallets' COMMIT was what
            failed. Then the history stands still: run it again.
    """
    async with (
        open_topic(settings, "walletctl-restore", expired="fail") as topic,
        operator_engine(settings.history_database_url) as history,
        operator_engine(settings.database_url) as wallets,
    ):
        offsets = await topic.offsets()
        ends = {partition: high for partition, (_, high) in offsets.items()}
        known = await _newest_epoch(topic, offsets)
        async with history.connect() as connection:
            known = max(known, await queries.history_epoch(connection, settings.kafka_topic))
        return await _begin(wallets, history, settings.kafka_topic, known, reason, topic.id, ends)


@leased
async def _begin(
    wallets: AsyncEngine,
    history: AsyncEngine,
    topic_name: str,
    known: int,
    reason: str | None,
    topic_id: str,
    ends: Mapping[int, int],
) -> EpochStart:
    """Begin the epoch and stop the history: each statement of both has succeeded before either is committed.

    The history's commit comes first: an epoch must not begin while consumers still take the old one's events.
    """
    is_stopped = False
    try:
        async with wallets.begin() as epochs:
            epoch, pending = await queries.begin_epoch(epochs, known, actor(), reason, topic_id, ends)
            async with history.begin() as positions:
                await queries.stop_history(positions, topic_name)
            is_stopped = True
    except Exception as error:
        if is_stopped:
            error.add_note("The history stands still, and the epoch may have begun: run restore begin again")
        raise
    return EpochStart(epoch, pending, ends)


async def _newest_epoch(topic: TopicReader, offsets: Mapping[int, tuple[int, int]]) -> int:
    """Return the newest epoch of the topic's last events: the database may have been restored to before it began.

    Reads backwards, ever larger pieces, as others' records and markers of their transactions may lie behind the event.
    """
    newest = 0
    for partition, (low, high) in offsets.items():
        begin, count, found = high, _LAST_RECORDS, [0]
        while begin > low and not any(found):
            begin, end = max(low, begin - count), begin
            async for messages in topic.messages({partition: begin}, {partition: end}):
                records = topic_records(messages, topic.id)
                found += [record.source_epoch for record in records if record.is_event]
            count *= 10
        newest = max(newest, *found)
    return newest


async def find_lost(settings: LostSettings | PipelineSettings, events_max: int) -> LossReport:
    """Read the whole topic, and ask the ledger for each event.

    Args:
        settings: the wallet database and the topic.
        events_max: so many are kept; all are counted, each once, however often it was published.

    Raises:
        TimeoutError: Kafka is away.
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    lost, seen = LossReport(), set[UUID]()
    async with (
        open_topic(settings, "walletctl-restore", expired="fail") as topic,
        operator_engine(settings.database_url) as engine,
    ):
        # Asked before the ledger is: what is published was committed before.
        offsets = await topic.offsets()
        begins = {partition: low for partition, (low, _) in offsets.items()}
        ends = {partition: high for partition, (_, high) in offsets.items()}
        with progress_bar("reading the topic", sum(ends.values()) - sum(begins.values())) as advance:
            async for messages in topic.messages(begins, ends):
                for event in await _unknown(engine, topic_records(messages, topic.id)):
                    if event.id not in seen:
                        seen.add(event.id)
                        lost.count += 1
                        if lost.count <= events_max:
                            lost.events.append(event)
                advance(len(messages))
    return lost


async def _unknown(engine: AsyncEngine, records: Sequence[Record]) -> list[LostEvent]:
    told = [(record, record.content[0]) for record in records if not isinstance(record.content, Poison)]
    async with engine.connect() as connection:
        known = await queries.known_events(connection, [row for _, row in told])
    return [
        LostEvent(row.event_id, record.partition, record.offset, record.source_epoch, row.event_data)
        for record, row in told
        if row.event_id not in known
    ]
