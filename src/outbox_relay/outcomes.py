"""What becomes of each row of a batch, given what the broker said. Pure."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Published(NamedTuple):
    """The broker has it, at this partition and offset: settle the row."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker will never take it: too large, invalid."""

    error: str


@dataclass(frozen=True, slots=True)
class Undelivered:
    """It may be there or not: asking again may help."""

    error: str


Report = Published | Refused | Undelivered


@dataclass(frozen=True, slots=True)
class Parked:
    """Set the row aside until an operator decides."""

    error: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Leave the row pending; `is_broker_away`: because the broker doesn't answer, and not for lack of time."""

    error: str
    is_broker_away: bool = True


RowOutcome = Published | Parked | Retry


class Row(Protocol):
    """What of an outbox row matters here."""

    @property
    def id(self) -> int:
        """The outbox id."""

    @property
    def aggregate_id(self) -> Hashable:
        """Whose order is kept."""

    @property
    def waits(self) -> bool:
        """Whether an earlier row of the same aggregate is parked."""


def decide_outcomes(rows: Sequence[Row], reports: Mapping[int, Report]) -> dict[int, RowOutcome]:
    """Return the outcome of each row by its id.

    An aggregate's rows stay in order: behind a row that is parked the later ones are parked too, and behind
    one that has to be tried again they are tried again, even where the broker has them already. (They were
    delivered out of turn; sent once more they follow in turn, and consumers drop what they have.)

    Args:
        rows: a batch, ascending by id.
        reports: by row id, for the rows that were sent.
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
