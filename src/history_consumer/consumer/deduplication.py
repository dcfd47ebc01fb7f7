"""Which rows of a batch are new, which the history has already, and which records are dead letters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from history_consumer.consumer.records import DeadLetter, Poison, Record
from history_consumer.projection import HistoryRow

VERSION_CONFLICT: Final = "version-conflict"
SUPERSEDED: Final = "superseded"
"""The event is of a source epoch that ended when the wallet database was restored, and the history hasn't got it."""
RESTORED: Final = "restored"
"""The event is of a source epoch for which the history has not been rebuilt yet."""

_WAY_OUT: Final = "walletctl verify says more; if the wallet database was restored: walletctl restore begin"

# Wallets and events are keyed by their integers: hashing and comparing UUIDs is Python code, four times as slow.
VersionKey = tuple[int, int]
EventKey = tuple[int, int]


@dataclass(frozen=True)
class ExistingEvents:
    """The events that the history has.

    Args:
        events: the event of each (wallet, version).
        versions: the version of each (event, wallet).
    """

    events: Mapping[VersionKey, UUID] = field(default_factory=dict)
    versions: Mapping[EventKey, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClassifiedBatch:
    """A batch after its rows were compared with the history.

    Args:
        rows: the new rows, in the order of their keys, so that concurrent writers don't deadlock.
        duplicate_count: how many rows the history has already.
        dead_letters: the records that can't be applied.
    """

    rows: Sequence[HistoryRow]
    duplicate_count: int
    dead_letters: Sequence[DeadLetter]


def classify_as_new(records: Sequence[Record]) -> ClassifiedBatch:
    """Classify all rows as new, without looking for duplicates: the database refuses a key that comes twice."""
    rows: list[HistoryRow] = []
    dead_letters: list[DeadLetter] = []
    for record in records:
        if isinstance(record.content, Poison):
            dead_letters.append(DeadLetter(record, record.content))
        else:
            rows += record.content
    rows.sort(key=_version_key)
    return ClassifiedBatch(rows, 0, dead_letters)


def classify(records: Sequence[Record], existing: ExistingEvents) -> ClassifiedBatch:
    """Classify the records of one batch, one after the other.

    An event is applied whole or not at all: if another event has one of its (wallet, version)s, none of its rows is
    new. An event of another source epoch is never new: the restore may have undone it.

    Args:
        records: in the order of the topic.
        existing: the events that the history has, as far as they share a key with these records.
    """
    events, versions = dict(existing.events), dict(existing.versions)
    rows: list[HistoryRow] = []
    dead_letters: list[DeadLetter] = []
    duplicate_count = 0
    for record in records:
        if isinstance(record.content, Poison):
            dead_letters.append(DeadLetter(record, record.content))
            continue
        refusal = _epoch_refusal(record, record.content, events) or _conflict(record.content, events, versions)
        if refusal:
            dead_letters.append(DeadLetter(record, refusal))
            continue
        for row in record.content:
            key = _version_key(row)
            if key in events:
                duplicate_count += 1
                continue
            events[key] = row.event_id
            versions[row.event_id.int, row.wallet_id.int] = row.wallet_version
            rows.append(row)
    rows.sort(key=_version_key)
    return ClassifiedBatch(rows, duplicate_count, dead_letters)


def _version_key(row: HistoryRow) -> VersionKey:
    return row.wallet_id.int, row.wallet_version


def _epoch_refusal(record: Record, rows: Sequence[HistoryRow], events: Mapping[VersionKey, UUID]) -> Poison | None:
    if not record.is_of_other_epoch:
        return None
    if all(events.get(_version_key(row)) == row.event_id for row in rows):
        return None
    epoch, ours = record.source_epoch, record.position.source_epoch
    what = f"event {rows[0].event_id} of source epoch {epoch}"
    if epoch > ours:
        return Poison(RESTORED, f"{what}: rebuild the history first (`walletctl history rebuild`)")
    return Poison(SUPERSEDED, f"{what}, which ended when the wallet database was restored: now it is {ours}")


def _conflict(
    rows: Sequence[HistoryRow], events: Mapping[VersionKey, UUID], versions: Mapping[EventKey, int]
) -> Poison | None:
    for row in rows:
        other = events.get(_version_key(row), row.event_id)
        if other != row.event_id:
            return Poison(
                VERSION_CONFLICT,
                f"wallet {row.wallet_id} has the event {other} at version {row.wallet_version}, not {row.event_id}; "
                f"{_WAY_OUT}",
            )
        version = versions.get((row.event_id.int, row.wallet_id.int), row.wallet_version)
        if version != row.wallet_version:
            return Poison(
                VERSION_CONFLICT,
                f"wallet {row.wallet_id} has the event {row.event_id} at version {version}, not {row.wallet_version}; "
                f"{_WAY_OUT}",
            )
    return None
