"""The outbox against the topic: each published row is at its recorded partition and offset, byte for byte."""

from collections.abc import Sequence
from contextlib import aclosing
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause
from sqlalchemy.ext.asyncio import AsyncConnection

from common.kafka.topic_reader import TopicReader
from walletctl.verify import queries
from walletctl.verify.merge import full_join
from walletctl.verify.report import Findings
from walletctl.verify.snapshots import Advance, Snapshots
from walletctl.verify.topic_records import TopicRecord, topic_records

STRAYS_HELD_MAX: Final = 50_000
"""How many records that no row records are collected before they are looked up; each lookup reads the outbox."""

_PLACE = attrgetter("partition", "offset")


class TopicCheck:
    """Compares, and counts what isn't a difference.

    `expired` rows have a record that the topic no longer keeps. `duplicates` are records that repeat an event
    of the outbox: a relay died before it settled, or an operator replayed. `pruned` ones are of an event that the
    history has and retention has taken from the outbox. `superseded` ones were published before the database was
    restored to an earlier time, and tell of what no longer happened.
    """

    def __init__(self, snapshots: Snapshots, topic: TopicReader, findings: Findings) -> None:
        self.expired = 0
        self.duplicates = 0
        self.pruned = 0
        self.superseded = 0
        self._epoch = snapshots.epoch
        self._wallet = snapshots.wallet
        self._history = snapshots.history
        self._may_be_pruned = snapshots.wallet_figures["pruned_version_count"] > 0
        self._topic = topic
        self._findings = findings
        self._strays: list[TopicRecord] = []

    async def run(self, advance: Advance) -> None:
        """Merge rows and records by where they are.

        Records below a partition's lowest recorded offset, and above its highest, are beyond the snapshot.

        Raises:
            TimeoutError: the broker went away.
        """
        rows = queries.stream(self._wallet, queries.PUBLISHED_ROWS)
        records = topic_records(self._topic, *await self._bounds())
        async with aclosing(rows), aclosing(records):
            async for row, record in full_join(rows, records, _PLACE, _PLACE):
                if row is not None:
                    self._findings.compared += 1
                    advance(1)
                    self._compare(row, record)
                elif record is not None:
                    self._strays.append(record)
                    if len(self._strays) >= STRAYS_HELD_MAX:
                        await self._look_up_strays()
        await self._look_up_strays()

    async def _bounds(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return where to begin and where to end in each partition, as far as the topic keeps it."""
        begins, ends = {}, {}
        kept = await self._topic.offsets()
        for row in await queries.every(self._wallet, queries.RECORDED_RANGES):
            if row.partition in kept:
                low, high = kept[row.partition]
                begins[row.partition], ends[row.partition] = max(row.first_offset, low), min(row.last_offset + 1, high)
        return begins, ends

    def _compare(self, row: Row[Any], record: TopicRecord | None) -> None:
        where = f"outbox row {row.id} at partition {row.partition} offset {row.offset}"
        if record is None:
            if row.offset < self._topic.lows.get(row.partition, 0):
                self.expired += 1
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
                self.pruned += 1
            elif not digests and self._is_superseded(stray):
                self.superseded += 1
            elif not digests:
                found = f"ce_id {stray.event_id} of source epoch {stray.source_epoch}"
                self._findings.add(where, "record", expected="an event of this outbox", found=found)
            elif stray.digest not in digests:
                what = f"sha256(value) of a duplicate of event {stray.event_id}"
                self._findings.add(where, what, expected=" or ".join(digests), found=stray.digest)
            else:
                self.duplicates += 1
        self._strays = []

    def _is_superseded(self, stray: TopicRecord) -> bool:
        return self._epoch.supersedes(stray.source_epoch, self._topic.id, stray.partition, stray.offset)


async def _digests(
    connection: AsyncConnection, query: TextClause, records: Sequence[TopicRecord]
) -> dict[str, list[str]]:
    """Return the SHA-256 of the payloads of these records' events, by event id, of those that the query finds."""
    event_ids = {record.event_id for record in records if _is_uuid(record.event_id)}
    if not event_ids:
        return {}
    digests: dict[str, list[str]] = {}
    for row in await queries.every(connection, query, event_ids=list(event_ids)):
        digests.setdefault(row.event_id, []).append(row.digest)
    return digests


def _is_uuid(text: str | None) -> bool:
    try:
        return str(UUID(text)) == text
    except (TypeError, ValueError):
        return False
