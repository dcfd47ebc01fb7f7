"""After a restore of the wallet database to an earlier time: a new source epoch, and the events that were lost.

docs/restore.md is the runbook.
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
from outbox_relay.leases import retry_while_leased
from walletctl.console import progress_bar
from walletctl.restore import queries
from walletctl.settings import RestoreBeginSettings, RestoreLostSettings

_LAST_RECORDS: Final = 100


@dataclass(frozen=True, slots=True)
class EpochStart:
    """The start of a source epoch.

    Args:
        epoch: the epoch's number.
        pending: how many events the database has not published yet; they are published in the new epoch.
        topic_ends: the offset that the topic's next record gets, by partition.
    """

    epoch: int
    pending: int
    topic_ends: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class LostEvent:
    """An event that the topic has and the wallet database does not; `data` is its JSON, as published."""

    id: UUID
    partition: int
    offset: int
    source_epoch: int
    data: str


@dataclass
class LossReport:
    """The events that the topic has and the wallet database does not: how many, and the first of them."""

    count: int = 0
    events: list[LostEvent] = field(default_factory=list)


async def begin(settings: RestoreBeginSettings | PipelineSettings, reason: str | None) -> EpochStart:
    """Start an epoch above every epoch that the database, the history or the topic has, and halt the history.

    It may be repeated, and run while services run: each event that they write belongs to one epoch or the other.

    Args:
        settings: the databases and the topic.
        reason: why; stored with the epoch.

    Raises:
        TimeoutError: Kafka is away; nothing was done.
        sqlalchemy.exc.DBAPIError: a database is away or refuses. Nothing was done, unless the COMMIT in the wallet
            database failed. Then the history is halted: run it again.
    """
    async with (
        open_topic(settings.kafka, settings.kafka_topic, "walletctl-restore", expired="fail") as topic,
        operator_engine(settings.history_database_url) as history,
        operator_engine(settings.database_url) as wallets,
    ):
        offsets = await topic.offsets()
        ends = {partition: high for partition, (_, high) in offsets.items()}
        known = await _newest_epoch(topic, offsets)
        async with history.connect() as connection:
            known = max(known, await queries.history_epoch(connection, settings.kafka_topic))
        return await _begin(wallets, history, topic, known, reason, ends)


@retry_while_leased
async def _begin(
    wallets: AsyncEngine,
    history: AsyncEngine,
    topic: TopicReader,
    known: int,
    reason: str | None,
    ends: Mapping[int, int],
) -> EpochStart:
    """Start the epoch and halt the history. Every statement of both has succeeded before either is committed.

    The history's commit comes first: no epoch may start while consumers still apply events of the old one.
    """
    is_halted = False
    try:
        async with wallets.begin() as wallet_connection:
            epoch, pending = await queries.begin_epoch(wallet_connection, known, actor(), reason, topic.id, ends)
            async with history.begin() as history_connection:
                await queries.halt_history(history_connection, topic.name)
            is_halted = True
    except Exception as error:
        if is_halted:
            error.add_note("The history is halted, and the epoch may have started: run restore begin again")
        raise
    return EpochStart(epoch, pending, ends)


async def _newest_epoch(topic: TopicReader, offsets: Mapping[int, tuple[int, int]]) -> int:
    """Return the newest epoch of the topic's last events. The restored database may not have that epoch.

    Reads backwards, in pieces that grow: foreign records and transaction markers may follow the last event.
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


async def find_lost(settings: RestoreLostSettings | PipelineSettings, events_max: int) -> LossReport:
    """Read the whole topic, and look up each event in the ledger.

    Args:
        settings: the wallet database and the topic.
        events_max: how many lost events to return. All are counted, each once, however often it was published.

    Raises:
        TimeoutError: Kafka is away.
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    report, seen = LossReport(), set[UUID]()
    async with (
        open_topic(settings.kafka, settings.kafka_topic, "walletctl-restore", expired="fail") as topic,
        operator_engine(settings.database_url, writes=False) as engine,
    ):
        # Before the ledger is asked: an event is committed first and published second.
        offsets = await topic.offsets()
        begins = {partition: low for partition, (low, _) in offsets.items()}
        ends = {partition: high for partition, (_, high) in offsets.items()}
        with progress_bar("reading the topic", sum(ends.values()) - sum(begins.values())) as advance:
            async for messages in topic.messages(begins, ends):
                for event in await _unknown(engine, topic_records(messages, topic.id)):
                    if event.id not in seen:
                        seen.add(event.id)
                        report.count += 1
                        if report.count <= events_max:
                            report.events.append(event)
                advance(len(messages))
    return report


async def _unknown(engine: AsyncEngine, records: Sequence[Record]) -> list[LostEvent]:
    events = [(record, record.content[0]) for record in records if not isinstance(record.content, Poison)]
    async with engine.connect() as connection:
        known = await queries.known_events(connection, [row for _, row in events])
    return [
        LostEvent(row.event_id, record.partition, record.offset, record.source_epoch, row.event_data)
        for record, row in events
        if row.event_id not in known
    ]
