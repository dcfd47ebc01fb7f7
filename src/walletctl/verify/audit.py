"""The audit: compares every row and record of wallets, ledger, outbox, topic and history, and samples nothing.

It runs beside live traffic without false alarms. Each database is read in one snapshot, the history's first. What lies
beyond the snapshots (not yet published, not yet applied) is counted in the horizon, and is no difference.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from common.kafka.topic_reader import TopicReader, open_topic
from common.progress import Advance, Progress, in_steps, no_progress
from common.settings import PipelineSettings
from walletctl.verify import history, ledger
from walletctl.verify.published import RecordCounts, check_topic
from walletctl.verify.report import CheckResult, Findings, Horizon, Report
from walletctl.verify.snapshots import Snapshots, take_snapshots

BALANCES: Final = "wallet balances = ledger sums"
SUMS: Final = "ledger sums to zero"
VERSIONS: Final = "versions without holes"
HOLDS: Final = "holds = ledger"
OUTBOX: Final = "ledger = outbox"
TOPIC: Final = "outbox = topic"
HISTORY: Final = "history = ledger"
PROGRESS: Final = "history counts its rows"
POSITIONS: Final = "consumer positions"
DEAD_LETTERS: Final = "no dead letters"

_REPORTED_STEP: Final = 1000


async def audit(settings: PipelineSettings, *, progress: Progress = no_progress) -> Report:
    """Compare everything with everything; change nothing.

    The audit holds a transaction open on each database. Until it ends, PostgreSQL keeps dead rows.

    Args:
        settings: the databases, the topic and the consumer group.
        progress: shows how far each check is.

    Raises:
        TimeoutError: Kafka is away.
        OSError: PostgreSQL is away.
        sqlalchemy.exc.DBAPIError: PostgreSQL is away, refuses, or has no tables.
    """
    async with (
        open_topic(settings, "walletctl-verify", expired="skip", checks_crcs=True) as topic,
        take_snapshots(settings) as snapshots,
    ):
        checks = _Checks(progress)
        await _check_wallets(checks, snapshots)
        counts = await _check_events(checks, snapshots, topic)
        on_their_way = await _check_history(checks, snapshots, topic)
        return Report(_horizon(snapshots, counts, on_their_way), checks.results)


async def _check_wallets(checks: "_Checks", snapshots: Snapshots) -> None:
    """Check that wallets, holds and ledger agree."""
    with checks.check(BALANCES, "wallets") as (findings, _):
        await ledger.check_balances(snapshots, findings)
    with checks.check(SUMS, "entries") as (findings, _):
        await ledger.check_sums(snapshots, findings)
    with checks.check(VERSIONS, "versions") as (findings, _):
        await ledger.check_versions(snapshots, findings)
    with checks.check(HOLDS, "holds") as (findings, _):
        await ledger.check_holds(snapshots, findings)


async def _check_events(checks: "_Checks", snapshots: Snapshots, topic: TopicReader) -> RecordCounts:
    """Check that the outbox has an event for every movement, and the topic a record for every published event."""
    with checks.check(OUTBOX, "versions") as (findings, _):
        await ledger.check_outbox(snapshots, findings)
    with checks.check(TOPIC, "records", snapshots.wallet_figures["published_count"]) as (findings, advance):
        return await check_topic(snapshots, topic, findings, advance)


async def _check_history(checks: "_Checks", snapshots: Snapshots, topic: TopicReader) -> int:
    """Check that the history has the rows that it must have, and no other rows; return how many are on their way."""
    total = snapshots.wallet_figures["wallet_count"] + snapshots.wallet_figures["wallet_entry_count"]
    with checks.check(HISTORY, "versions", total) as (findings, advance):
        on_their_way = await history.check_history(snapshots, findings, advance)
    with checks.check(PROGRESS, "wallets") as (findings, _):
        await history.check_progress(snapshots, findings)
    with checks.check(POSITIONS, "partitions") as (findings, _):
        await history.check_positions(snapshots, findings, topic)
    with checks.check(DEAD_LETTERS, "dead letters") as (findings, _):
        await history.check_dead_letters(snapshots, findings, topic.name)
    return on_their_way


class _Checks:
    """Times each check, shows its progress, and collects its result."""

    def __init__(self, progress: Progress) -> None:
        self.results: list[CheckResult] = []
        self._progress = progress

    @contextmanager
    def check(self, name: str, unit: str, total: int | None = None) -> Iterator[tuple[Findings, Advance]]:
        """Run one check in the block, which notes its findings.

        Args:
            name: the check's name.
            unit: what it compares.
            total: how many of these it will compare, or None where that is unknown.
        """
        findings, started = Findings(name), time.monotonic()
        with self._progress(name, total) as advance:
            yield findings, in_steps(advance, _REPORTED_STEP)
        seconds = time.monotonic() - started
        self.results.append(
            CheckResult(name, findings.compared, unit, findings.difference_count, seconds, findings.lines)
        )


def _horizon(snapshots: Snapshots, counts: RecordCounts, on_their_way: int) -> Horizon:
    """Return up to where the checks looked."""
    wallet_figures, history_figures = snapshots.wallet_figures, snapshots.history_figures
    return Horizon(
        history_taken_at=history_figures["taken_at"],
        taken_at=wallet_figures["taken_at"],
        source_epoch=snapshots.epoch.number,
        last_outbox_id=wallet_figures["last_outbox_id"],
        next_offsets={partition: position.next_offset for partition, position in snapshots.positions.items()},
        pending=wallet_figures["pending_count"],
        parked=wallet_figures["parked_count"],
        skipped=wallet_figures["skipped_count"],
        pruned=wallet_figures["pruned_version_count"],
        on_their_way=on_their_way,
        topic_expired=counts.expired,
        topic_pruned=counts.pruned,
        topic_superseded=counts.superseded,
        topic_duplicates=counts.duplicates,
        history_gaps=history_figures["gap_count"],
    )
