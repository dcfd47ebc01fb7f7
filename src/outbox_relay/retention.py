"""Retention: deletes old published outbox rows and old idempotency keys, in chunks.

The wallet API writes the keys, but the relay prunes them: it is the only long-lived worker on the wallet database. One
advisory lock lets one relay at a time prune both tables in one pass.

Pending, parked and skipped rows are never deleted. (Only the skipped row tells why the history has a gap.)
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.actor import actor
from common.pauses import Pauses
from common.worker import database_deadline
from outbox_relay import metrics, retention_queries
from outbox_relay.operations import queries

log = structlog.get_logger()

PAUSES: Final = Pauses(1.0, 60.0)
"""How long a relay pauses when it found nothing to prune."""

_CHUNK_ROWS_MAX: Final = 1000
_CHUNK_PAUSE_SECONDS: Final = 0.1
# With the pause and the close, less than a relay that ends may take.
_CHUNK_SECONDS_MAX: Final = 30.0
_REWIND_SECONDS: Final = 3600.0
_DAY_SECONDS: Final = 86_400


@dataclass(frozen=True)
class RetentionAges:
    """The ages, in days, at which outbox rows and idempotency keys are deleted."""

    outbox_days: float
    keys_days: float


@dataclass(frozen=True, slots=True)
class PruneResult:
    """How many rows and keys one chunk deleted, and whether more may follow."""

    rows: int
    keys: int
    more: bool


class OutboxRetention:
    """A relay's pruner: one chunk at a time, beside the batches. Of all relays' pruners, one works at a time."""

    def __init__(self, engine: AsyncEngine, ages: RetentionAges) -> None:
        self._engine = engine
        self._ages = ages
        self._after_id = 0
        self._rewind_at = time.monotonic() + _REWIND_SECONDS

    async def run_once(self) -> int:
        """Prune one chunk; return 1 if there may be more to do now, else 0.

        Raises:
            TemporaryError: PostgreSQL is away, or too busy to prune. Publishing goes on.
        """
        async with database_deadline(_CHUNK_SECONDS_MAX):
            pruned = await self._prune()
        if not pruned.more:
            return 0
        # At most 10 chunks a second, so that pruning doesn't slow the API.
        await asyncio.sleep(_CHUNK_PAUSE_SECONDS)
        return 1

    async def _prune(self) -> PruneResult:
        self._rewind()
        async with self._engine.begin() as connection:
            if not await retention_queries.lock(connection, wait=False):
                return PruneResult(0, 0, more=False)
            pruned, self._after_id = await _prune_chunk(connection, self._ages, self._after_id)
        _account(pruned)
        return pruned

    def _rewind(self) -> None:
        """Start again from the lowest id once an hour: rows that an earlier pass left may be published now."""
        now = time.monotonic()
        if now >= self._rewind_at:
            self._after_id, self._rewind_at = 0, now + _REWIND_SECONDS


async def _prune_chunk(connection: AsyncConnection, ages: RetentionAges, after_id: int) -> tuple[PruneResult, int]:
    outbox_before = await retention_queries.before(connection, ages.outbox_days * _DAY_SECONDS)
    keys_before = await retention_queries.before(connection, ages.keys_days * _DAY_SECONDS)
    chunk = await retention_queries.prune_outbox(connection, outbox_before, after_id, _CHUNK_ROWS_MAX)
    keys = await retention_queries.prune_keys(connection, keys_before, _CHUNK_ROWS_MAX)
    more = not chunk.at_end or keys == _CHUNK_ROWS_MAX
    return PruneResult(chunk.row_count, keys, more), chunk.scanned_up_to_id


def _account(pruned: PruneResult) -> None:
    metrics.pruned.labels("outbox").inc(pruned.rows)
    metrics.pruned.labels("idempotency_keys").inc(pruned.keys)
    if pruned.rows or pruned.keys:
        log.debug("pruned", rows=pruned.rows, keys=pruned.keys)


async def count_prunable(engine: AsyncEngine, ages: RetentionAges) -> tuple[int, int]:
    """Return how many outbox rows and how many idempotency keys are old enough to be deleted."""
    async with engine.connect() as connection:
        outbox_before = await retention_queries.before(connection, ages.outbox_days * _DAY_SECONDS)
        keys_before = await retention_queries.before(connection, ages.keys_days * _DAY_SECONDS)
        return await retention_queries.count_prunable(connection, outbox_before, keys_before)


async def prune(engine: AsyncEngine, ages: RetentionAges, reason: str | None = None) -> AsyncIterator[PruneResult]:
    """Prune now what the relays would prune in time. Writes an audit row; may be stopped between chunks.

    Yields:
        The result of each chunk, which is committed.
    """
    rows, keys = await count_prunable(engine, ages)
    async with engine.begin() as connection:
        selection = {"outbox_days": ages.outbox_days, "keys_days": ages.keys_days, "keys": keys}
        await queries.audit(connection, actor(), "prune", orjson.dumps(selection).decode(), rows, reason)
    after_id = 0
    more = True
    while more:
        async with engine.begin() as connection:
            await retention_queries.lock(connection, wait=True)
            pruned, after_id = await _prune_chunk(connection, ages, after_id)
        yield pruned
        more = pruned.more
