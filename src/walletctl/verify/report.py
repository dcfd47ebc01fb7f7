"""The audit's report: the figures of each check, the differences, and the horizon up to which it looked. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

DIFFERENCES_KEPT_MAX: Final = 100


@dataclass
class Findings:
    """The differences that one check finds. At most 100 are kept as lines. All are counted."""

    check: str
    compared: int = 0
    difference_count: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, where: str, what: str, *, expected: object, found: object) -> None:
        """Note a difference: which wallet, transaction, row or record; which part of it; expected and found."""
        self.difference_count += 1
        if len(self.lines) < DIFFERENCES_KEPT_MAX:
            self.lines.append(f"{self.check}: {where}: {what}: expected {expected}, found {found}")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check's figures. `unit` names what `compared` counts.

    `seconds` has the time of all that the check reads. Checks that share a reading, or read side by side, each have it.
    """

    name: str
    compared: int
    unit: str
    difference_count: int
    seconds: float
    lines: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """Up to where the audit looked, and what it counted without judging.

    Args:
        history_taken_at: when the history's snapshot was taken.
        taken_at: when the wallets' snapshot was taken, a moment later.
        source_epoch: 1, or more if the wallet database was restored.
        last_outbox_id: the newest event in the snapshot.
        next_offsets: the consumer's position in the history's snapshot, by partition.
        pending: outbox rows not yet published.
        parked: outbox rows that wait for an operator.
        skipped: outbox rows that an operator has skipped; the history will never have their versions.
        pruned: wallet versions whose outbox rows retention has deleted.
        on_their_way: wallet versions that the history does not have yet, and need not have.
        topic_expired: published rows whose records the topic no longer keeps.
        topic_pruned: records of events whose outbox rows retention has deleted.
        topic_superseded: records of events that a restore of the wallet database undid.
        topic_duplicates: records that repeat an event of the outbox; consumers drop them.
        history_gaps: wallets of which the history has a later version and lacks an earlier one.
    """

    history_taken_at: datetime
    taken_at: datetime
    source_epoch: int
    last_outbox_id: int
    next_offsets: Mapping[int, int]
    pending: int
    parked: int
    skipped: int
    pruned: int
    on_their_way: int
    topic_expired: int
    topic_pruned: int
    topic_superseded: int
    topic_duplicates: int
    history_gaps: int

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "history_taken_at": self.history_taken_at.isoformat(),
            "taken_at": self.taken_at.isoformat(),
            "source_epoch": self.source_epoch,
            "last_outbox_id": self.last_outbox_id,
            "next_offsets": {str(partition): offset for partition, offset in sorted(self.next_offsets.items())},
            "pending": self.pending,
            "parked": self.parked,
            "skipped": self.skipped,
            "pruned": self.pruned,
            "on_their_way": self.on_their_way,
            "topic_expired": self.topic_expired,
            "topic_pruned": self.topic_pruned,
            "topic_superseded": self.topic_superseded,
            "topic_duplicates": self.topic_duplicates,
            "history_gaps": self.history_gaps,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of an audit.

    Args:
        horizon: up to where it looked.
        checks: what it compared.
        seconds: how long it took.
        since: only what was created after this time was compared; None if all was.
        why_all: why all was compared, though only what came after the last clean audit was asked for.
        clean_up_to: the time up to which this audit and those before it have proved everything, which is stored; None
            if something differs, or if this login can't store it.
    """

    horizon: Horizon
    checks: Sequence[CheckResult]
    seconds: float
    since: datetime | None = None
    why_all: str | None = None
    clean_up_to: datetime | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return self.difference_count == 0

    @property
    def difference_count(self) -> int:
        """How many differences there are in all."""
        return sum(check.difference_count for check in self.checks)

    @property
    def differences(self) -> list[str]:
        """At most 100 differences, in the order of the checks. Each check has a fair share of the lines."""
        shares = fair_shares([len(check.lines) for check in self.checks], DIFFERENCES_KEPT_MAX)
        return [line for check, share in zip(self.checks, shares, strict=True) for line in check.lines[:share]]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "ok": self.ok,
            "since": _isoformat(self.since),
            "why_all": self.why_all,
            "clean_up_to": _isoformat(self.clean_up_to),
            "horizon": self.horizon.as_json(),
            "checks": [
                {
                    "name": check.name,
                    "compared": check.compared,
                    "unit": check.unit,
                    "differences": check.difference_count,
                    "seconds": round(check.seconds, 3),
                }
                for check in self.checks
            ],
            "seconds": round(self.seconds, 3),
            "difference_count": self.difference_count,
            "differences": self.differences,
        }


def _isoformat(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def fair_shares(wanted: Sequence[int], total: int) -> list[int]:
    """Divide `total` so that no share is above its wish, and only a share with a smaller wish is below another."""
    shares, left = [0] * len(wanted), total
    for position, index in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        shares[index] = min(wanted[index], left // (len(wanted) - position))
        left -= shares[index]
    return shares
