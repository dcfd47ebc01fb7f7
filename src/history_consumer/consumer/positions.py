"""Where a consumer stands in the partitions that the group gave it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from common.events import FIRST_SOURCE_EPOCH


@dataclass(slots=True, eq=False)
class Position:
    """One partition, held since one assignment: `next_offset` is what the database says, as far as we know.

    A partition that goes and comes back has a new Position, so that what was read under the old one is told
    from it by identity. `source_epoch` is the one up to which the history is in line with the wallet database.
    """

    partition: int
    next_offset: int
    topic_id: str
    source_epoch: int = FIRST_SOURCE_EPOCH


@dataclass(frozen=True, slots=True)
class Assignment:
    """The partitions that the group gave one membership. It never changes: what happens makes another one.

    So whoever looks, from whichever thread, sees one moment; only the membership's thread puts another in its place.

    Args:
        pending: given, but not read yet: their positions are still to be asked of the database.
        held: being read.
        halted: given, but standing still until an operator acts: partition and why.
        halted_at: where these stood.
    """

    pending: frozenset[int] = frozenset()
    held: Mapping[int, Position] = field(default_factory=dict)
    halted: Mapping[int, str] = field(default_factory=dict)
    halted_at: Mapping[int, Position] = field(default_factory=dict)

    def given(self, partitions: Collection[int]) -> "Assignment":
        """The group gave these."""
        return replace(self, pending=self.pending | set(partitions))

    def without(self, partitions: Collection[int]) -> "Assignment":
        """The group took these."""
        return Assignment(
            self.pending - set(partitions),
            {partition: position for partition, position in self.held.items() if partition not in partitions},
            {partition: why for partition, why in self.halted.items() if partition not in partitions},
            {partition: position for partition, position in self.halted_at.items() if partition not in partitions},
        )

    def holding(self, positions: Iterable[Position]) -> "Assignment":
        """These are read at their positions."""
        held = {position.partition: position for position in positions}
        rest = self.without(held)
        return replace(rest, held={**rest.held, **held})

    def halting(self, position: Position, why: str) -> "Assignment":
        """The partition stands still; `why` names the way out."""
        rest = self.without([position.partition])
        return replace(
            rest,
            halted={**rest.halted, position.partition: why},
            halted_at={**rest.halted_at, position.partition: position},
        )

    def looking_up(self, partition: int) -> "Assignment":
        """Where the partition stands is forgotten: the database has its position."""
        return self.without([partition]).given([partition])

    def has(self, position: Position) -> bool:
        """Whether the partition is still to be read, or read since this assignment of it."""
        return position.partition in self.pending or self.held.get(position.partition) is position

    def state(self) -> str:
        """Return "ok", or which partitions stand still and why."""
        if not self.halted:
            return "ok"
        return "; ".join(f"partition {partition} halted: {why}" for partition, why in sorted(self.halted.items()))
