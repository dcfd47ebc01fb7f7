"""The history against the ledger, row by row, and the history's own bookkeeping."""

from contextlib import aclosing
from operator import attrgetter
from typing import Any

from sqlalchemy import Row

from common.kafka.topic_reader import TopicReader
from walletctl.verify import queries
from walletctl.verify.lines import differing
from walletctl.verify.merge import full_join
from walletctl.verify.report import Findings
from walletctl.verify.snapshots import Advance, Snapshots

_KEY = attrgetter("key")


async def check_history(snapshots: Snapshots, findings: Findings, advance: Advance) -> int:
    """Compare each version of each wallet with its row in the history; return how many are on their way.

    A row must be there if its event was published before the consumer's position. If not, it may be: a record
    can be applied before the relay has settled it, and a replayed event is pending once more. A version whose
    event was skipped is not on its way: it will never be there. One whose outbox row is gone since retention took
    it, by its time, must be there: the history is its only witness left.
    """
    on_their_way = 0
    facts = queries.stream(snapshots.wallet, queries.EXPECTED_HISTORY)
    rows = queries.stream(snapshots.history, queries.HISTORY)
    async with aclosing(facts), aclosing(rows):
        async for fact, row in full_join(facts, rows, _KEY, _KEY):
            findings.compared += 1
            advance(1)
            if fact is None or row is None or fact.line != row.line:
                on_their_way += _judge(fact, row, snapshots, findings)
    return on_their_way


def _judge(fact: Row[Any] | None, row: Row[Any] | None, snapshots: Snapshots, findings: Findings) -> int:
    """Note the difference, if it is one; return 1 for what is on its way."""
    if fact is None:
        assert row is not None
        findings.add(_where(row.key), "row of the history", expected="none: the ledger hasn't got it", found="a row")
    elif row is not None:
        if different := differing(queries.HISTORY_FIELDS, fact.line, row.line):
            findings.add(_where(fact.key), "row of the history", expected=different[0], found=different[1])
    elif snapshots.is_applied(fact.partition, fact.offset):
        place = f"published at partition {fact.partition} offset {fact.offset}, which the consumer has passed"
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


async def check_progress(snapshots: Snapshots, findings: Findings) -> None:
    """Each wallet's count of events and highest version are those of its rows."""
    findings.compared = snapshots.history_figures["wallet_count"]
    async for row in queries.stream(snapshots.history, queries.PROGRESS):
        findings.add(
            f"wallet {row.wallet_id}",
            "event_count and max_version in wallet_progress",
            expected="none" if row.counted is None else f"{row.counted} and {row.highest} by its rows",
            found="none" if row.event_count is None else f"{row.event_count} and {row.max_version}",
        )


async def check_positions(snapshots: Snapshots, findings: Findings, topic: TopicReader) -> None:
    """The consumer's positions are of this topic and this epoch, and not beyond the topic's end."""
    findings.compared = len(snapshots.positions)
    offsets = await topic.offsets()
    for partition, position in snapshots.positions.items():
        where = f"partition {partition}"
        if position.source_epoch != snapshots.epoch.number:
            expected = f"{snapshots.epoch.number}, as the wallet database: rebuild the history"
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
    """No record waits for an operator because it couldn't be applied."""
    async for row in queries.stream(snapshots.history, queries.DEAD_LETTERS, {"topic": topic_name}):
        findings.compared += 1
        where = f"dead letter {row.id} of partition {row.partition} offset {row.offset}"
        findings.add(where, "record", expected="applied", found=f"{row.reason}: {row.detail}")
