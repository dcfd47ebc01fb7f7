"""How far a lane's scan may skip: a hint that must never strand a row. Pure.

An id can be handed out early and committed late, so "everything up to 100 is published" can be true now and
false in a snapshot. It stays true once every transaction that might have taken an id up to 100 has ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from outbox_relay.outcomes import Retry, Row, RowOutcome


@dataclass(frozen=True, slots=True)
class IdSnapshot:
    """A look at the database: first the last id handed out, then, later, the snapshot's bounds.

    `highest_id` is the highest of which anything was left before: if the sequence is behind that, by `behind`, new
    ids are below old ones. An unknown `last_id` is 0, and not behind.
    """

    last_id: int
    xmin: int
    xmax: int
    highest_id: int = 0

    @property
    def behind(self) -> int:
        """Return by how many ids the sequence is behind."""
        return max(0, self.highest_id - self.last_id) if self.last_id else 0


class SafeHorizon:
    """Follows the id up to which no row can still turn up.

    Every transaction takes its transaction id before its first outbox id (it has locked or written a wallet by
    then). So all that might hold an id up to `last_id` have a transaction id below the `xmax` of a
    snapshot taken after it, and have ended when some later snapshot's `xmin` has reached that `xmax`.
    """

    def __init__(self) -> None:
        self.safe_id = 0
        self._awaited: IdSnapshot | None = None

    def observe(self, snapshot: IdSnapshot) -> int:
        """Take a new look; return the safe id. Ids that have gone back begin anew: the database was restored."""
        if snapshot.last_id < max(self.safe_id, self._awaited.last_id if self._awaited else 0):
            self.safe_id, self._awaited = 0, None
        if self._awaited is not None and snapshot.xmin >= self._awaited.xmax:
            self.safe_id = max(self.safe_id, self._awaited.last_id)
            self._awaited = None
        if self._awaited is None:
            self._awaited = snapshot
        return self.safe_id


class LaneRow(Row, Protocol):
    """A row that knows its lane."""

    @property
    def lane(self) -> int:
        """Where it is published in order."""


def raised_low_waters(
    low_waters: Mapping[int, int],
    rows: Sequence[LaneRow],
    outcomes: Mapping[int, RowOutcome],
    safe_id: int,
    *,
    lane_rows_max: int,
    step: int,
) -> dict[int, int]:
    """Return the lanes whose low water may rise, and to which id.

    Args:
        low_waters: of the claimed lanes, as they are.
        rows: what was read of them, ascending by id.
        outcomes: by row id.
        safe_id: no row up to it could have been missed by that reading.
        lane_rows_max: a lane with so many rows read may have more.
        step: smaller rises aren't worth the write.
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
