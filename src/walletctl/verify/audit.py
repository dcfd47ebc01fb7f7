"""The audit: compares every row and record of wallets, ledger, outbox, topic and history, and samples nothing.

It runs beside live traffic without false alarms. Each database is read in one snapshot, the history's first. What lies
beyond the snapshots (not yet published, not yet applied) is counted in the horizon, and is no difference.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from common.kafka.topic_reader import TopicReader, open_topic
from common.progress import Progress, in_steps, no_progress
from common.settings import PipelineSettings
from walletctl.verify import history, ledger, limits
from walletctl.verify.horizons import Start, may_store, reached, start_after_last, store
from walletctl.verify.published import RecordCounts, check_topic, recorded_ranges
from walletctl.verify.report import CheckResult, Findings, Horizon, Report
from walletctl.verify.snapshots import Snapshots, take_snapshots
from walletctl.verify.sums import Reading, Sums, read_sums
from walletctl.verify.topic_records import Ranges

BALANCES: Final = "wallet balances = ledger sums"
SUMS: Final = "ledger sums to zero"
VERSIONS: Final = "versions without holes"
HOLDS: Final = "holds = ledger"
REVERSALS: Final = "reversals <= originals"
STATUSES: Final = "wallet statuses = ledger"
LIMITS: Final = "wallet limits = ledger"
OUTBOX: Final = "ledger = outbox"
TOPIC: Final = "outbox = topic"
HISTORY: Final = "history = ledger"
PROGRESS: Final = "history counts its rows"
POSITIONS: Final = "consumer positions"
DEAD_LETTERS: Final = "no dead letters"

_REPORTED_STEP: Final = 1000


async def audit(settings: PipelineSettings, *, since_last: bool = False, progress: Progress = no_progress) -> Report:
    """Compare everything with everything; change nothing but the stored horizon, and that only if nothing differs.

    The audit holds a transaction open on each database. Until it ends, PostgreSQL keeps dead rows.

    Args:
        settings: the databases, the topic and the consumer group.
        since_last: whether to compare only what came after the horizon of the last clean audit.
        progress: shows how far each check is.

    Raises:
        TimeoutError: Kafka is away.
        OSError: PostgreSQL is away.
        sqlalchemy.exc.DBAPIError: PostgreSQL is away, refuses, or has no tables.
    """
    started = time.monotonic()
    async with (
        open_topic(settings.kafka, settings.kafka_topic, "walletctl-verify", expired="skip", checks_crcs=True) as topic,
        take_snapshots(settings) as taken,
    ):
        start = await start_after_last(taken, topic, settings) if since_last else Start()
        snapshots = taken.since(start.since)
        ranges = await recorded_ranges(snapshots, topic, start.read_to)
        with progress("reading every row and record", snapshots.outbox.count("published_count")) as advance:
            sums = await read_sums(snapshots, topic, ranges, in_steps(advance, _REPORTED_STEP))
        checks = _Checks(progress)
        await _check_wallets(checks, snapshots, sums)
        counts = await _check_events(checks, snapshots, topic, sums, ranges)
        on_their_way = await _check_history(checks, snapshots, topic, sums)
        horizon = _horizon(snapshots, counts, on_their_way)
        ok = not any(check.difference_count for check in checks.results)
        clean = await reached(snapshots, topic, start, ranges) if ok and await may_store(snapshots) else None
    if clean is not None:
        await store(settings, clean)
    return Report(
        horizon,
        checks.results,
        time.monotonic() - started,
        since=start.horizon.up_to if start.horizon else None,
        why_all=start.why_all,
        clean_up_to=clean.up_to if clean else None,
    )


async def _check_wallets(checks: "_Checks", snapshots: Snapshots, sums: Sums) -> None:
    """Check that wallets, holds, limits and ledger agree."""
    with checks.check(BALANCES, "wallets", sums.ledger) as findings:
        await ledger.check_balances(snapshots, sums, findings)
    with checks.check(SUMS, "entries", sums.ledger) as findings:
        await ledger.check_sums(snapshots, sums, findings)
    with checks.check(VERSIONS, "versions", sums.ledger) as findings:
        await ledger.check_versions(snapshots, sums, findings)
    with checks.check(HOLDS, "holds") as findings:
        await ledger.check_holds(snapshots, findings)
    with checks.check(REVERSALS, "reversals") as findings:
        await ledger.check_reversals(snapshots, findings)
    with checks.check(STATUSES, "wallets") as findings:
        await ledger.check_statuses(snapshots, findings)
    with checks.check(LIMITS, "velocity limits") as findings:
        await limits.check_limits(snapshots, sums, findings)


async def _check_events(
    checks: "_Checks", snapshots: Snapshots, topic: TopicReader, sums: Sums, ranges: Ranges
) -> RecordCounts:
    """Check that the outbox has an event for every movement, and the topic a record for every published event."""
    with checks.check(OUTBOX, "versions", sums.facts, sums.claims, sums.repeats) as findings:
        await ledger.check_outbox(snapshots, sums, findings)
    with checks.check(TOPIC, "records", sums.recorded, sums.records) as findings:
        return await check_topic(snapshots, topic, sums, ranges, findings)


async def _check_history(checks: "_Checks", snapshots: Snapshots, topic: TopicReader, sums: Sums) -> int:
    """Check that the history has the rows that it must have, and no other rows; return how many are on their way."""
    with checks.check(HISTORY, "versions", sums.facts, sums.claims, sums.history) as findings:
        on_their_way = await history.check_history(snapshots, sums, findings)
    with checks.check(PROGRESS, "wallets", sums.miscounts) as findings:
        await history.check_progress(snapshots, sums, findings)
    with checks.check(POSITIONS, "partitions") as findings:
        await history.check_positions(snapshots, findings, topic)
    with checks.check(DEAD_LETTERS, "dead letters") as findings:
        await history.check_dead_letters(snapshots, findings, topic.name)
    return on_their_way


class _Checks:
    """Times each check, shows that it runs, and collects its result."""

    def __init__(self, progress: Progress) -> None:
        self.results: list[CheckResult] = []
        self._progress = progress

    @contextmanager
    def check(self, name: str, unit: str, *readings: Reading[Any]) -> Iterator[Findings]:
        """Run one check in the block, which notes its findings.

        Args:
            name: the check's name.
            unit: what it compares.
            readings: the sums that it compares. Their time is a part of the check's.
        """
        findings, started = Findings(name), time.monotonic()
        with self._progress(name, None):
            yield findings
        seconds = time.monotonic() - started + sum(reading.seconds for reading in readings)
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
        last_outbox_id=snapshots.outbox.last_id,
        next_offsets={partition: position.next_offset for partition, position in snapshots.positions.items()},
        pending=snapshots.outbox.count("pending_count"),
        parked=snapshots.outbox.count("parked_count"),
        skipped=snapshots.outbox.count("skipped_count"),
        pruned=wallet_figures["pruned_version_count"],
        on_their_way=on_their_way,
        topic_expired=counts.expired,
        topic_pruned=counts.pruned,
        topic_superseded=counts.superseded,
        topic_duplicates=counts.duplicates,
        history_gaps=history_figures["gap_count"],
    )
