"""The audit: proves, and doesn't sample, that wallets, ledger, outbox, topic and history say the same.

It runs on a live system without false alarms. Each database is read in one snapshot, the history's first; what
lies beyond (not yet published, not yet applied) is counted in the horizon and not judged.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from common.kafka.topic_reader import TopicReader, open_topic
from common.settings import PipelineSettings
from walletctl.verify import history, ledger, snapshots
from walletctl.verify.published import TopicCheck
from walletctl.verify.report import CheckResult, Findings, Horizon, Report
from walletctl.verify.snapshots import Advance, Snapshots

OnProgress = Callable[[str, int, int | None], None]
"""Takes a check's name, how many it has compared so far, and of how many, if that is known."""

BALANCES: Final = "wallet balances = ledger sums"
SUMS: Final = "ledger sums to zero"
VERSIONS: Final = "versions without holes"
OUTBOX: Final = "ledger = outbox"
TOPIC: Final = "outbox = topic"
HISTORY: Final = "history = ledger"
PROGRESS: Final = "history counts its rows"
POSITIONS: Final = "consumer positions"
DEAD_LETTERS: Final = "no dead letters"

_REPORTED_EVERY: Final = 1000


def _silent(check: str, done: int, total: int | None) -> None:
    del check, done, total


async def audit(settings: PipelineSettings, *, on_progress: OnProgress = _silent) -> Report:
    """Compare everything with everything; change nothing.

    Holds a transaction open on each database meanwhile, which keeps PostgreSQL from removing dead rows.

    Raises:
        TimeoutError: Kafka is away.
        OSError: PostgreSQL is away.
        sqlalchemy.exc.DBAPIError: PostgreSQL is away, refuses, or has no tables.
    """
    async with (
        open_topic(settings, "walletctl-verify", expired="skip", checks_crcs=True) as topic,
        snapshots.taken(settings) as taken,
    ):
        run = _Run(settings, taken, topic, on_progress)
        await run.wallets()
        await run.events()
        await run.history()
        return Report(run.horizon(), run.results)


class _Run:
    """One run of all checks over one pair of snapshots."""

    def __init__(
        self, settings: PipelineSettings, taken: Snapshots, topic: TopicReader, on_progress: OnProgress
    ) -> None:
        self.results: list[CheckResult] = []
        self._settings = settings
        self._taken = taken
        self._topic = topic
        self._on_progress = on_progress
        self._on_their_way = self._expired = self._duplicates = self._pruned = self._superseded = 0

    async def wallets(self) -> None:
        """Check what is inside the wallets and the ledger."""
        with self._check(BALANCES, "wallets") as (findings, _):
            await ledger.check_balances(self._taken, findings)
        with self._check(SUMS, "entries") as (findings, _):
            await ledger.check_sums(self._taken, findings)
        with self._check(VERSIONS, "versions") as (findings, _):
            await ledger.check_versions(self._taken, findings)

    async def events(self) -> None:
        """Check that the ledger's every movement is in the outbox, and what was published in the topic."""
        with self._check(OUTBOX, "versions") as (findings, _):
            await ledger.check_outbox(self._taken, findings)
        with self._check(TOPIC, "records", self._taken.wallet_figures["published_count"]) as (findings, advance):
            check = TopicCheck(self._taken, self._topic, findings)
            await check.run(advance)
            self._expired, self._duplicates = check.expired, check.duplicates
            self._pruned, self._superseded = check.pruned, check.superseded

    async def history(self) -> None:
        """Check that the history has what it must, and nothing else."""
        figures = self._taken.wallet_figures
        total = figures["wallet_count"] + figures["wallet_entry_count"]
        with self._check(HISTORY, "versions", total) as (findings, advance):
            self._on_their_way = await history.check_history(self._taken, findings, advance)
        with self._check(PROGRESS, "wallets") as (findings, _):
            await history.check_progress(self._taken, findings)
        with self._check(POSITIONS, "partitions") as (findings, _):
            await history.check_positions(self._taken, findings, self._topic)
        with self._check(DEAD_LETTERS, "dead letters") as (findings, _):
            await history.check_dead_letters(self._taken, findings, self._settings.kafka_topic)

    @contextmanager
    def _check(self, name: str, unit: str, total: int | None = None) -> Iterator[tuple[Findings, Advance]]:
        findings, started, done = Findings(name), time.monotonic(), 0
        self._on_progress(name, 0, total)

        def advance(more: int) -> None:
            nonlocal done
            done += more
            if done % _REPORTED_EVERY == 0:
                self._on_progress(name, done, total)

        yield findings, advance
        self._on_progress(name, findings.compared, findings.compared)
        self.results.append(
            CheckResult(
                name,
                findings.compared,
                unit,
                findings.difference_count,
                time.monotonic() - started,
                findings.lines,
            )
        )

    def horizon(self) -> Horizon:
        """Return up to where the checks looked."""
        wallet, history_figures = self._taken.wallet_figures, self._taken.history_figures
        return Horizon(
            history_taken_at=history_figures["taken_at"],
            taken_at=wallet["taken_at"],
            source_epoch=self._taken.epoch.number,
            last_outbox_id=wallet["last_outbox_id"],
            next_offsets={partition: at.next_offset for partition, at in self._taken.positions.items()},
            pending=wallet["pending_count"],
            parked=wallet["parked_count"],
            skipped=wallet["skipped_count"],
            pruned=wallet["pruned_version_count"],
            on_their_way=self._on_their_way,
            topic_expired=self._expired,
            topic_pruned=self._pruned,
            topic_superseded=self._superseded,
            topic_duplicates=self._duplicates,
            history_gaps=history_figures["gap_count"],
        )
