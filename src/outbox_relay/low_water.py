"""The low water of a lane: the id above which a relay starts to read. It must never strand a row. Pure.

A transaction may take an id early and commit late. So "all rows up to 100 are published" can be true now and false a
moment later. It stays true once every transaction that may have taken an id up to 100 has ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from outbox_relay.outcomes import Retry, Row, RowOutcome


@dataclass(frozen=True, slots=True)
class IdSnapshot:
    """The state of outbox ids: the sequence's last id, then the bounds of a snapshot that was taken after reading it.

    Attributes:
        last_id: the last id that the sequence handed out; 0 is unknown.
        xmin: every transaction with a lower transaction id has ended.
        xmax: no transaction with this transaction id or a higher one had begun.
        highest_id: the highest id of which the tables have a trace.
    """

    last_id: int
    xmin: int
    xmax: int
    highest_id: int = 0

    @property
    def behind(self) -> int:
        """By how many ids the sequence is behind the highest id; 0 if the last id is unknown."""
        return max(0, self.highest_id - self.last_id) if self.last_id else 0


class SafeIdTracker:
    """Finds the safe id: no row with that id or a lower one can still appear.

    A transaction takes its transaction id before its first outbox id, because it has locked or written a wallet by
    then. So each transaction that may hold an id up to `last_id` is below the `xmax` of a snapshot taken after it.
    All of them have ended when a later snapshot's `xmin` reaches that `xmax`.
    """

    def __init__(self) -> None:
        self.safe_id = 0
        self._awaited: IdSnapshot | None = None

    def observe(self, snapshot: IdSnapshot) -> int:
        """Take a new snapshot into account; return the safe id. Where ids went back (a restore), it starts from 0."""
        if snapshot.last_id < max(self.safe_id, self._awaited.last_id if self._awaited else 0):
            self.safe_id, self._awaited = 0, None
        if self._awaited is not None and snapshot.xmin >= self._awaited.xmax:
            self.safe_id = max(self.safe_id, self._awaited.last_id)
            self._awaited = None
        if self._awaited is None:
            self._awaited = snapshot
        return self.safe_id


class LaneRow(Row, Protocol):
    """An outbox row with its lane."""

    @property
    def lane(self) -> int:
        """The lane in which it is published in order."""


def raised_low_waters(
    low_waters: Mapping[int, int],
    rows: Sequence[LaneRow],
    outcomes: Mapping[int, RowOutcome],
    safe_id: int,
    *,
    lane_rows_max: int,
    step: int,
) -> dict[int, int]:
    """Return the new low water of each lane whose low water may rise.

    Args:
        low_waters: the present low water of each claimed lane.
        rows: the rows that were read from these lanes, ascending by id.
        outcomes: the outcome of each row, by its id.
        safe_id: every row up to it was visible to that read.
        lane_rows_max: a lane from which so many rows were read may have more.
        step: a low water rises by at least so many ids, because each rise is a write.
    """
    by_lane: dict[int, list[LaneRow]] = {lane: [] for lane in low_waters}
    for row in rows:
        by_lane[row.lane].append(row)
    raised = {}
    for lane, lane_rows in by_lane.items():
        left = [row.id for row in lane_rows if isinstance(outcomes[row.id], Retry)]
        bounds = [safe_id, *(row_id - 1 for row_id in left[:1])]
        if len(lane_rows) >= lane_rows_max:
            bounds.append(lane_rows[-1].id)
        if min(bounds) - low_waters[lane] >= step:
            raised[lane] = min(bounds)
    return raised
