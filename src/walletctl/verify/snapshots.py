"""Two snapshots, the history's first: whatever the history has must then be in the wallets' snapshot too."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from common.epochs import Epoch, current_epoch
from common.postgres.reading import fetch_all, fetch_one, read_only_snapshot
from common.settings import PipelineSettings
from history_consumer.gap_queries import KEEP_TABLES
from history_consumer.position_queries import StoredPosition, stored_positions
from walletctl.verify import queries
from walletctl.verify.scope import BEGINNING, Scope, scope_of


@dataclass(frozen=True, slots=True)
class OutboxFigures:
    """What one pass over the outbox tells.

    Args:
        partitions: the rows of `queries.OUTBOX_FIGURES`.
    """

    partitions: Sequence[Row[Any]]

    def count(self, name: str) -> int:
        """Return the sum of a count over all partitions and the rows without one."""
        return sum(getattr(row, name) for row in self.partitions)

    @property
    def last_id(self) -> int:
        """The highest id; 0 without rows."""
        return max((row.last_id for row in self.partitions), default=0)

    @property
    def oldest_on_its_way_at(self) -> datetime | None:
        """When the oldest event was created that the history need not have yet."""
        times = [row.oldest_on_its_way_at for row in self.partitions if row.oldest_on_its_way_at]
        return min(times, default=None)


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Both databases, each as of one moment, and what they hold.

    Args:
        wallet: the wallet database, in a read-only transaction.
        history: the history's database, in a read-only transaction.
        wallet_figures: the row of `queries.WALLET_FIGURES`.
        outbox: what the outbox counts.
        history_figures: the row of `queries.HISTORY_FIGURES`.
        positions: up to where the consumer has applied the topic, by partition.
        epoch: the wallet database's epoch.
        scope: the rows that the audit looks at: all, unless a horizon is set.
    """

    wallet: AsyncConnection
    history: AsyncConnection
    wallet_figures: RowMapping
    outbox: OutboxFigures
    history_figures: RowMapping
    positions: Mapping[int, StoredPosition]
    epoch: Epoch
    scope: Scope

    def is_applied(self, partition: int | None, offset: int | None) -> bool:
        """Return whether the history must have the event that was published there."""
        if partition is None or offset is None or partition not in self.positions:
            return False
        return offset < self.positions[partition].next_offset

    def since(self, since: datetime) -> "Snapshots":
        """Return the same snapshots, of which only what was created after that time is looked at."""
        return replace(self, scope=scope_of(dict(self.wallet_figures), list(self.scope.units), self.scope.kept, since))


@asynccontextmanager
async def take_snapshots(settings: PipelineSettings) -> AsyncIterator[Snapshots]:
    """Take the snapshots and keep them for the block.

    An event is committed to the wallet database, then published, then applied to the history. So the second snapshot
    has every event that the first has. Live traffic never looks like a difference.
    """
    async with read_only_snapshot(settings.history_database_url, "walletctl-verify", before=KEEP_TABLES) as history:
        await history.execute(queries.PREPARE)
        positions = await stored_positions(history, settings.consumer_group, settings.kafka_topic)
        history_figures = await fetch_one(history, queries.HISTORY_FIGURES)
        async with read_only_snapshot(settings.database_url, "walletctl-verify") as wallet:
            await wallet.execute(queries.PREPARE)
            wallet_figures = await fetch_one(wallet, queries.WALLET_FIGURES)
            outbox = OutboxFigures(
                await fetch_all(
                    wallet,
                    queries.OUTBOX_FIGURES,
                    partitions=list(positions),
                    next_offsets=[position.next_offset for position in positions.values()],
                )
            )
            epoch = await current_epoch(wallet)
            currencies = [row.currency for row in await fetch_all(wallet, queries.CURRENCIES)]
            kept = await _kept(wallet, wallet_figures["pruned_up_to"])
            scope = scope_of(dict(wallet_figures), currencies, kept, BEGINNING)
            yield Snapshots(wallet, history, wallet_figures, outbox, history_figures, positions, epoch, scope)


async def _kept(wallet: AsyncConnection, pruned_up_to: datetime | None) -> list[str]:
    """Return the versions of the time in which retention has pruned that still have an outbox row."""
    if pruned_up_to is None:
        return []
    return [row.key for row in await fetch_all(wallet, queries.KEPT, up_to=pruned_up_to)]
