"""Decides the outcome of each row of a batch from the broker's reports. Pure."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Published(NamedTuple):
    """The broker has the record at this partition and offset: settle the row."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker will never take the record: it is too large or invalid."""

    error: str


@dataclass(frozen=True, slots=True)
class Undelivered:
    """It is unknown whether the broker has the record: sending it again may help."""

    error: str


Report = Published | Refused | Undelivered


@dataclass(frozen=True, slots=True)
class Parked:
    """Park the row until an operator retries or skips it."""

    error: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Leave the row pending: the broker didn't answer (`is_broker_away`), or there was no time to send it."""

    error: str
    is_broker_away: bool = True


RowOutcome = Published | Parked | Retry


class Row(Protocol):
    """The part of an outbox row that the decision needs."""

    @property
    def id(self) -> int:
        """The outbox id."""

    @property
    def aggregate_id(self) -> Hashable:
        """The wallet, whose rows stay in order."""

    @property
    def waits(self) -> bool:
        """Whether an earlier row of the same aggregate is parked."""


def decide_outcomes(rows: Sequence[Row], reports: Mapping[int, Report]) -> dict[int, RowOutcome]:
    """Return the outcome of each row by its id.

    An aggregate's rows stay in order. After a parked row, its later rows are parked too. After a row that is retried,
    its later rows are retried too, even those that the broker has: they were delivered out of order. Sent again they
    are in order, and consumers drop the duplicates.

    Args:
        rows: a batch, ascending by id.
        reports: the report of each row that was sent, by row id.
    """
    published: dict[int, RowOutcome] = {
        row_id: report for row_id, report in reports.items() if isinstance(report, Published)
    }
    if len(published) == len(rows) and not any(row.waits for row in rows):
        return published
    outcomes: dict[int, RowOutcome] = {}
    blocked: dict[Hashable, RowOutcome] = {}
    for row in rows:
        outcome = blocked.get(row.aggregate_id) or _decide(row, reports.get(row.id))
        outcomes[row.id] = outcome
        if row.aggregate_id not in blocked and not isinstance(outcome, Published):
            blocked[row.aggregate_id] = _behind(row, outcome)
    return outcomes


def _decide(row: Row, report: Report | None) -> RowOutcome:
    match report:
        case _ if row.waits:
            return Parked("waits behind a parked event of the same wallet", attempts=0)
        case Published():
            return report
        case Refused(error):
            return Parked(error, attempts=1)
        case Undelivered(error):
            return Retry(error)
        case None:
            return Retry("there was no time left to send it", is_broker_away=False)


def _behind(row: Row, outcome: RowOutcome) -> RowOutcome:
    if isinstance(outcome, Parked):
        return Parked(f"waits behind outbox row {row.id}, which is parked", attempts=0)
    return outcome
