"""The outbox compared with the topic: each published row has its record at its partition and offset, byte for byte."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause
from sqlalchemy.ext.asyncio import AsyncConnection

from common.kafka.topic_reader import TopicReader
from common.postgres.reading import fetch_all, stream_rows
from walletctl.verify import queries
from walletctl.verify.merge import full_join
from walletctl.verify.report import Findings
from walletctl.verify.scope import BEGINNING
from walletctl.verify.snapshots import Snapshots
from walletctl.verify.sums import Sums
from walletctl.verify.topic_records import BLOCK_BITS, Block, Ranges, TopicRecord, topic_records

STRAYS_HELD_MAX: Final = 50_000
"""How many records without a row are collected before a lookup, which reads the whole outbox."""

_PLACE = attrgetter("partition", "offset")


@dataclass
class RecordCounts:
    """Records that are no difference.

    Args:
        expired: published rows whose records the topic no longer keeps.
        duplicates: records that repeat an event of the outbox. A relay died before it settled the event, or an operator
            replayed it.
        pruned: records of events that the history has, and that retention has deleted from the outbox.
        superseded: records published before the database was restored to an earlier time, of events that the restore
            undid.
    """

    expired: int = 0
    duplicates: int = 0
    pruned: int = 0
    superseded: int = 0


async def recorded_ranges(snapshots: Snapshots, topic: TopicReader, read_to: Mapping[int, int]) -> Ranges:
    """Return which records to read: those at recorded offsets, and between them, of what the topic keeps.

    Records below a partition's lowest recorded offset, and above its highest, are beyond the snapshot.

    Args:
        snapshots: the databases. The lowest offset is that of a row within the scope.
        topic: the reader of the topic.
        read_to: the offset from which records are read at the latest, by partition.
    """
    begins, ends = {}, {}
    kept, recorded = await topic.offsets(), await _first_offsets(snapshots)
    for row in snapshots.outbox.partitions:
        firsts = [offsets[row.partition] for offsets in (recorded, read_to) if offsets.get(row.partition) is not None]
        if firsts and row.partition in kept and row.last_offset is not None:
            low, high = kept[row.partition]
            begins[row.partition], ends[row.partition] = max(low, min(firsts)), min(row.last_offset + 1, high)
    return Ranges(begins, ends)


async def _first_offsets(snapshots: Snapshots) -> Mapping[int, int]:
    """Return the lowest recorded offset of the rows within the scope, by partition."""
    rows = snapshots.outbox.partitions
    if snapshots.scope.since != BEGINNING:
        rows = await fetch_all(snapshots.wallet, queries.FIRST_OFFSETS_SINCE, since=snapshots.scope.since)
    return {row.partition: row.first_offset for row in rows}


async def check_topic(
    snapshots: Snapshots, topic: TopicReader, sums: Sums, ranges: Ranges, findings: Findings
) -> RecordCounts:
    """Compare each published row with the record at its partition and offset.

    Raises:
        TimeoutError: the broker went away.
    """
    recorded, records = sums.recorded.found, sums.records.found
    findings.compared = sum(block.row_count for block in recorded.values())
    check = _TopicCheck(snapshots, topic, findings)
    expired = {block for block in recorded if block.number is None}
    check.counts.expired = sum(recorded[block].row_count for block in expired)
    different = {block for block in recorded.keys() | records.keys() if recorded.get(block) != records.get(block)}
    different -= expired
    if different:
        await check.run(_ranges_of(different), ranges)
    return check.counts


def _ranges_of(blocks: Iterable[Block]) -> Ranges:
    """Return the offsets from the first to the last of these blocks, by partition."""
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    for partition, number in blocks:
        assert number is not None
        begin, end = number << BLOCK_BITS, (number + 1) << BLOCK_BITS
        begins[partition] = min(begin, begins.get(partition, begin))
        ends[partition] = max(end, ends.get(partition, end))
    return Ranges(begins, ends)


class _TopicCheck:
    """Merges the outbox's rows with the topic's records."""

    def __init__(self, snapshots: Snapshots, topic: TopicReader, findings: Findings) -> None:
        self.counts = RecordCounts()
        self._epoch = snapshots.epoch
        self._wallet = snapshots.wallet
        self._history = snapshots.history
        self._may_be_pruned = snapshots.wallet_figures["pruned_version_count"] > 0
        self._topic = topic
        self._findings = findings
        self._strays: list[TopicRecord] = []

    async def run(self, asked: Ranges, kept: Ranges) -> None:
        """Compare the rows and records of the ranges that are asked for, in the order of partition and offset."""
        begins = {partition: max(begin, asked.begins[partition]) for partition, begin in _common(kept.begins, asked)}
        ends = {partition: min(end, asked.ends[partition]) for partition, end in _common(kept.ends, asked)}
        rows = stream_rows(
            self._wallet,
            queries.PUBLISHED_ROWS,
            partitions=list(asked.begins),
            begins=[begins.get(partition, begin) for partition, begin in asked.begins.items()],
            ends=list(asked.ends.values()),
        )
        records = topic_records(self._topic, begins, ends)
        async with aclosing(rows), aclosing(records):
            async for row, record in full_join(rows, records, _PLACE, _PLACE):
                if row is not None:
                    self._compare(row, record)
                elif record is not None:
                    self._strays.append(record)
                    if len(self._strays) >= STRAYS_HELD_MAX:
                        await self._look_up_strays()
        await self._look_up_strays()

    def _compare(self, row: Row[Any], record: TopicRecord | None) -> None:
        where = f"outbox row {row.id} at partition {row.partition} offset {row.offset}"
        if record is None:
            if row.offset < self._topic.lows.get(row.partition, 0):
                self.counts.expired += 1
                return
            self._findings.add(where, "record", expected=f"event {row.event_id}", found="none in the topic")
        elif record.event_id != row.event_id:
            self._findings.add(where, "ce_id", expected=row.event_id, found=record.event_id)
        elif record.source_epoch != row.source_epoch:
            self._findings.add(where, "ce_sourceepoch", expected=row.source_epoch, found=record.source_epoch)
        elif record.key != row.key:
            self._findings.add(where, "key", expected=row.key, found=record.key)
        elif record.digest != row.digest:
            self._findings.add(where, "sha256(value)", expected=row.digest, found=record.digest)

    async def _look_up_strays(self) -> None:
        known = await _digests(self._wallet, queries.FIND_EVENTS, self._strays)
        unknown = [stray for stray in self._strays if stray.event_id not in known]
        pruned = await _digests(self._history, queries.FIND_HISTORY_EVENTS, unknown) if self._may_be_pruned else {}
        for stray in self._strays:
            where = f"partition {stray.partition} offset {stray.offset}"
            digests = known.get(stray.event_id or "", ())
            if not digests and stray.digest in pruned.get(stray.event_id or "", ()):
                self.counts.pruned += 1
            elif not digests and self._is_superseded(stray):
                self.counts.superseded += 1
            elif not digests:
                found = f"ce_id {stray.event_id} of source epoch {stray.source_epoch}"
                self._findings.add(where, "record", expected="an event of this outbox", found=found)
            elif stray.digest not in digests:
                what = f"sha256(value) of a duplicate of event {stray.event_id}"
                self._findings.add(where, what, expected=" or ".join(digests), found=stray.digest)
            else:
                self.counts.duplicates += 1
        self._strays = []

    def _is_superseded(self, stray: TopicRecord) -> bool:
        return self._epoch.supersedes(stray.source_epoch, self._topic.id, stray.partition, stray.offset)


def _common(offsets: Mapping[int, int], asked: Ranges) -> Iterator[tuple[int, int]]:
    return ((partition, offset) for partition, offset in offsets.items() if partition in asked.begins)


async def _digests(
    connection: AsyncConnection, query: TextClause, records: Sequence[TopicRecord]
) -> dict[str, list[str]]:
    """Return by event id the SHA-256 of the payloads that the query finds for these records' events."""
    event_ids = {record.event_id for record in records if _is_uuid(record.event_id)}
    if not event_ids:
        return {}
    digests: dict[str, list[str]] = {}
    for row in await fetch_all(connection, query, event_ids=list(event_ids)):
        digests.setdefault(row.event_id, []).append(row.digest)
    return digests


def _is_uuid(text: str | None) -> bool:
    try:
        return str(UUID(text)) == text
    except (TypeError, ValueError):
        return False
