"""Two snapshots, the history's first: whatever it holds must then be in the wallets' too."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, TextClause
from sqlalchemy.ext.asyncio import AsyncConnection

from common.epochs import Epoch, current_epoch
from common.postgres.engine import create_engine
from common.settings import PipelineSettings
from history_consumer.gap_queries import KEEP_TABLES
from walletctl.verify import queries

Advance = Callable[[int], None]
"""Takes how many more have been compared."""


@dataclass(frozen=True, slots=True)
class StoredPosition:
    """Up to where the consumer has applied a partition, of which topic, and in line with which epoch."""

    next_offset: int
    topic_id: str
    source_epoch: int


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Both databases as they were at one moment each, and what they hold."""

    wallet: AsyncConnection
    history: AsyncConnection
    wallet_figures: RowMapping
    history_figures: RowMapping
    positions: Mapping[int, StoredPosition]
    epoch: Epoch

    @property
    def taken_at(self) -> datetime:
        """When the wallets' snapshot was taken."""
        moment: datetime = self.wallet_figures["taken_at"]
        return moment

    def is_applied(self, partition: int | None, offset: int | None) -> bool:
        """Whether the history must have what was published there."""
        if partition is None or offset is None or partition not in self.positions:
            return False
        return offset < self.positions[partition].next_offset


@asynccontextmanager
async def taken(settings: PipelineSettings) -> AsyncIterator[Snapshots]:
    """Take the snapshots, keep them for the block, and leave no trace.

    An event is committed to the wallet database, published, applied to the history: in this order. So what the
    first snapshot has, the second has too, and nothing that the pipeline does meanwhile looks like a difference.
    """
    async with AsyncExitStack() as stack:
        history = await stack.enter_async_context(_reading(settings.history_database_url, KEEP_TABLES))
        found = await queries.every(
            history, queries.POSITIONS, consumer_group=settings.consumer_group, topic=settings.kafka_topic
        )
        positions = {row.partition: StoredPosition(row.next_offset, row.topic_id, row.source_epoch) for row in found}
        history_figures = await queries.one(history, queries.HISTORY_FIGURES)
        wallet = await stack.enter_async_context(_reading(settings.database_url))
        wallet_figures = await queries.one(wallet, queries.WALLET_FIGURES)
        epoch = await current_epoch(wallet)
        yield Snapshots(wallet, history, wallet_figures, history_figures, positions, epoch)


@asynccontextmanager
async def _reading(url: str, before: TextClause | None = None) -> AsyncIterator[AsyncConnection]:
    """Open a transaction whose statements all see the same, and which changes nothing.

    Args:
        url: of the database.
        before: a statement to run before the snapshot is taken.
    """
    engine = create_engine(
        url,
        "walletctl-verify",
        pool_size=1,
        statement_timeout_seconds=0,
        idle_in_transaction_timeout_seconds=0,
    )
    try:
        async with engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            async with connection.begin():
                if before is not None:
                    await connection.execute(before)
                await connection.execute(queries.PREPARE)
                yield connection
    finally:
        await engine.dispose()
