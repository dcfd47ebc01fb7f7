"""The partitions that the group gave a consumer, and its position in each."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from common.events.headers import FIRST_SOURCE_EPOCH


@dataclass(slots=True, eq=False)
class Position:
    """The consumer's position in one partition, during one assignment of the partition.

    A partition that is revoked and given again has a new Position. Records that were read under the old one are told
    apart by its identity.

    Args:
        partition: of the topic.
        next_offset: of the record to be applied next: the database's, as far as this consumer knows.
        topic_id: of the topic from which the partition is read.
        source_epoch: of the wallet database for which the history was last rebuilt.
    """

    partition: int
    next_offset: int
    topic_id: str
    source_epoch: int = FIRST_SOURCE_EPOCH


@dataclass(frozen=True, slots=True)
class Assignment:
    """The partitions that the group gave one membership. Immutable: a change makes another one.

    Each thread that reads it sees one moment. Only the membership's thread replaces it.

    Args:
        pending: partitions that were given and are not read yet: their positions are still to be read.
        held: positions of the partitions that are read.
        halted: why partitions are halted until an operator acts.
        halted_at: positions at which they were halted.
    """

    pending: frozenset[int] = frozenset()
    held: Mapping[int, Position] = field(default_factory=dict)
    halted: Mapping[int, str] = field(default_factory=dict)
    halted_at: Mapping[int, Position] = field(default_factory=dict)

    def given(self, partitions: Collection[int]) -> "Assignment":
        """Return the assignment after the group gave these partitions."""
        return replace(self, pending=self.pending | set(partitions))

    def without(self, partitions: Collection[int]) -> "Assignment":
        """Return the assignment without these partitions."""
        return Assignment(
            self.pending - set(partitions),
            {partition: position for partition, position in self.held.items() if partition not in partitions},
            {partition: why for partition, why in self.halted.items() if partition not in partitions},
            {partition: position for partition, position in self.halted_at.items() if partition not in partitions},
        )

    def holding(self, positions: Iterable[Position]) -> "Assignment":
        """Return the assignment in which these partitions are read at their positions."""
        held = {position.partition: position for position in positions}
        rest = self.without(held)
        return replace(rest, held={**rest.held, **held})

    def halting(self, position: Position, why: str) -> "Assignment":
        """Return the assignment in which the partition is halted; `why` names the way out."""
        rest = self.without([position.partition])
        return replace(
            rest,
            halted={**rest.halted, position.partition: why},
            halted_at={**rest.halted_at, position.partition: position},
        )

    def looking_up(self, partition: int) -> "Assignment":
        """Return the assignment in which the partition is pending again: its position is read from the database."""
        return self.without([partition]).given([partition])

    def has(self, position: Position) -> bool:
        """Whether the partition is pending, or read under this very position."""
        return position.partition in self.pending or self.held.get(position.partition) is position

    def state(self) -> str:
        """Return "ok", or which partitions are halted and why."""
        if not self.halted:
            return "ok"
        return "; ".join(f"partition {partition} halted: {why}" for partition, why in sorted(self.halted.items()))
