"""Where this consumer stands in the partitions that the group gave it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import structlog

from common.events import FIRST_SOURCE_EPOCH
from history_consumer import metrics

log = structlog.get_logger()


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


@dataclass
class Assignment:
    """The partitions that the group gave this consumer.

    Args:
        pending: given, but not read yet: their positions are still to be asked of the database.
        held: being read.
        halted: given, but standing still until an operator acts: partition and why.
        halted_at: where these stood.
    """

    pending: set[int] = field(default_factory=set)
    held: dict[int, Position] = field(default_factory=dict)
    halted: dict[int, str] = field(default_factory=dict)
    halted_at: dict[int, Position] = field(default_factory=dict)

    def give(self, partitions: Collection[int]) -> None:
        """The group gave these."""
        self.pending |= set(partitions)

    def take(self, partitions: Collection[int]) -> list[int]:
        """The group took these; return those that were being read."""
        read = [partition for partition in partitions if self.held.pop(partition, None)]
        self.pending -= set(partitions)
        for partition in partitions:
            self.halted.pop(partition, None)
            self.halted_at.pop(partition, None)
        self._count()
        return read

    def hold(self, positions: Iterable[Position]) -> None:
        """Begin to read these at their positions."""
        for position in positions:
            self.pending.discard(position.partition)
            self.held[position.partition] = position
        self._count()

    def look_up_again(self, position: Position) -> None:
        """Forget where the partition stands: the database has its position."""
        del self.held[position.partition]
        self.pending.add(position.partition)
        self._count()

    def halt(self, position: Position, why: str) -> None:
        """Let the partition stand still; `why` names the way out."""
        self.pending.discard(position.partition)
        self.held.pop(position.partition, None)
        self.halted[position.partition] = why
        self.halted_at[position.partition] = position
        self._count()
        log.error("partition_halted", partition=position.partition, why=why)

    def release(self, position: Position) -> None:
        """Let the partition be taken up again, if it still stands still there."""
        if self.halted_at.get(position.partition) is not position:
            return
        del self.halted[position.partition], self.halted_at[position.partition]
        self.pending.add(position.partition)
        self._count()
        log.info("partition_released", partition=position.partition)

    def state(self) -> str:
        """Return "ok", or which partitions stand still and why."""
        if not self.halted:
            return "ok"
        return "; ".join(f"partition {partition} halted: {why}" for partition, why in sorted(self.halted.items()))

    def _count(self) -> None:
        metrics.partitions_held.set(len(self.held))
        metrics.partitions_halted.set(len(self.halted))
