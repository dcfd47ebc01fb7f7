"""The history compared with the ledger, row by row, and with its own counts and positions."""

from collections.abc import Sequence
from contextlib import aclosing
from operator import attrgetter
from typing import Any

from sqlalchemy import Row

from common.kafka.topic_reader import TopicReader
from common.postgres.reading import stream_rows
from walletctl.verify import queries
from walletctl.verify.lines import differing
from walletctl.verify.merge import full_join
from walletctl.verify.report import Findings
from walletctl.verify.scope import PRUNED_SLICE, Scope
from walletctl.verify.snapshots import Snapshots
from walletctl.verify.sums import SliceSum, Sums

_KEY = attrgetter("key")


async def check_history(snapshots: Snapshots, sums: Sums, findings: Findings) -> int:
    """Compare each version of each wallet with its row in the history; return how many are on their way.

    The history must have a row whose event was published before the consumer's position. It may have a row of a later
    event: the consumer may apply a record before the relay settles it. It may also have the row of an event that is
    pending again, because an operator replayed it. A version whose event was skipped never arrives, and is not on its
    way. The history must have a version whose outbox row retention has deleted.
    """
    slices = _different_slices(snapshots.scope, sums)
    same = [history for slice_, history in sums.history.found.items() if slice_ not in slices]
    findings.compared = sum(history.row_count for history in same)
    return await _compare_history(snapshots, slices, findings) if slices else 0


def _different_slices(scope: Scope, sums: Sums) -> list[int]:
    """Return the slices of time whose rows must be compared one by one."""
    none, different = SliceSum(), []
    for slice_ in scope.slices:
        facts, claims, history = (
            found.get(slice_, none) for found in (sums.facts.found, sums.claims.found, sums.history.found)
        )
        if facts.facts != history.facts or (claims.events != history.events and slice_ != PRUNED_SLICE):
            different.append(slice_)
    return different


async def _compare_history(snapshots: Snapshots, slices: Sequence[int], findings: Findings) -> int:
    """Compare the versions of these slices one by one."""
    on_their_way, parameters = 0, {**snapshots.scope.parameters, "slices": slices}
    facts = stream_rows(snapshots.wallet, queries.EXPECTED_HISTORY, **parameters)
    rows = stream_rows(snapshots.history, queries.HISTORY, **parameters)
    async with aclosing(facts), aclosing(rows):
        async for fact, row in full_join(facts, rows, _KEY, _KEY):
            findings.compared += 1
            if fact is None or row is None or fact.line != row.line:
                on_their_way += _judge(fact, row, snapshots, findings)
    return on_their_way


def _judge(fact: Row[Any] | None, row: Row[Any] | None, snapshots: Snapshots, findings: Findings) -> int:
    """Note the difference, if it is one; return 1 for a version that is on its way."""
    if fact is None:
        assert row is not None
        findings.add(_where(row.key), "row of the history", expected="none: the ledger does not have it", found="a row")
    elif row is not None:
        if different := differing(queries.HISTORY_FIELDS, fact.line, row.line):
            findings.add(_where(fact.key), "row of the history", expected=different[0], found=different[1])
    elif snapshots.is_applied(fact.partition, fact.offset):
        place = f"published at partition {fact.partition} offset {fact.offset}, before the consumer's position"
        findings.add(_where(fact.key), "row of the history", expected=f"a row: {place}", found="none")
    elif fact.pruned:
        expected = "a row: its outbox row, if there was one, has been pruned"
        findings.add(_where(fact.key), "row of the history", expected=expected, found="none")
    elif not fact.skipped:
        return 1
    return 0


def _where(key: str) -> str:
    wallet_id, version = key.split("/")
    return f"wallet {wallet_id} version {int(version)}"


async def check_progress(snapshots: Snapshots, sums: Sums, findings: Findings) -> None:
    """Check that each wallet's count of events and highest version are those of its rows."""
    findings.compared = snapshots.history_figures["wallet_count"]
    if not sums.miscounts.found:
        return
    async for row in stream_rows(snapshots.history, queries.PROGRESS):
        findings.add(
            f"wallet {row.wallet_id}",
            "event_count and max_version in wallet_progress",
            expected="none" if row.counted is None else f"{row.counted} and {row.highest} by its rows",
            found="none" if row.event_count is None else f"{row.event_count} and {row.max_version}",
        )


async def check_positions(snapshots: Snapshots, findings: Findings, topic: TopicReader) -> None:
    """Check that the consumer's positions are of this topic and this epoch, and not beyond the topic's end."""
    findings.compared = len(snapshots.positions)
    offsets = await topic.offsets()
    for partition, position in snapshots.positions.items():
        where = f"partition {partition}"
        if position.source_epoch != snapshots.epoch.number:
            expected = f"{snapshots.epoch.number}, the wallet database's: rebuild the history"
            findings.add(where, "source epoch of the history", expected=expected, found=position.source_epoch)
        if position.topic_id != topic.id:
            expected = topic.id or "none: the topic is missing"
            findings.add(where, "topic id of the consumer's position", expected=expected, found=position.topic_id)
        elif partition in offsets:
            _, end_offset = offsets[partition]
            if position.next_offset > end_offset:
                what = "the consumer's position"
                findings.add(where, what, expected=f"at most {end_offset}, the end", found=position.next_offset)


async def check_dead_letters(snapshots: Snapshots, findings: Findings, topic_name: str) -> None:
    """Check that the history has no dead letters of the topic."""
    async for row in stream_rows(snapshots.history, queries.DEAD_LETTERS, topic=topic_name):
        findings.compared += 1
        where = f"dead letter {row.id} of partition {row.partition} offset {row.offset}"
        findings.add(where, "record", expected="applied", found=f"{row.reason}: {row.detail}")
