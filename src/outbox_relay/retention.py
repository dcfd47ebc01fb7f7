"""Retention: published outbox rows and answered idempotency keys leave when they are old enough, in chunks.

Pending, parked and skipped rows never leave. (A skipped one is all that says why the history has a hole.)
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
from common.postgres.errors import is_temporary, message_with_remedy
from common.worker import TemporaryError
from outbox_relay import metrics, retention_queries
from outbox_relay.operations import queries

log = structlog.get_logger()

PAUSES: Final = Pauses(1.0, 60.0)
"""How often a relay looks for old rows while there are none."""

_CHUNK_ROWS_MAX: Final = 1000
_CHUNK_PAUSE_SECONDS: Final = 0.1
_REWIND_SECONDS: Final = 3600.0
_DAY_SECONDS: Final = 86_400


@dataclass(frozen=True)
class RetentionAges:
    """How old outbox rows and idempotency keys become."""

    outbox_days: float
    keys_days: float


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What one chunk took, and whether there may be more behind it."""

    rows: int
    keys: int
    more: bool


class OutboxRetention:
    """A relay's pruner: one chunk at a time, beside the batches. Any number may run; one of them works."""

    def __init__(self, engine: AsyncEngine, ages: RetentionAges) -> None:
        self._engine = engine
        self._ages = ages
        self._after_id = 0
        self._rewind_at = time.monotonic() + _REWIND_SECONDS

    async def run_once(self) -> int:
        """Prune one chunk; return 1 if there may be more to do now, else 0.

        Raises:
            TemporaryError: PostgreSQL is away, or too busy for this: the batches go on.
        """
        try:
            pruned = await self._prune()
        except Exception as error:
            if is_temporary(error):
                raise TemporaryError("database", message_with_remedy(error)) from error
            raise
        if not pruned.more:
            return 0
        # The wallets come first: at most 10 chunks a second.
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
        """Go on behind what was looked at; begin anew each hour, for rows that have been finished since."""
        now = time.monotonic()
        if now >= self._rewind_at:
            self._after_id, self._rewind_at = 0, now + _REWIND_SECONDS


async def _prune_chunk(connection: AsyncConnection, ages: RetentionAges, after_id: int) -> tuple[PruneResult, int]:
    outbox_before = await retention_queries.before(connection, ages.outbox_days * _DAY_SECONDS)
    keys_before = await retention_queries.before(connection, ages.keys_days * _DAY_SECONDS)
    chunk = await retention_queries.prune_outbox(connection, outbox_before, after_id, _CHUNK_ROWS_MAX)
    keys = await retention_queries.prune_keys(connection, keys_before, _CHUNK_ROWS_MAX)
    more = not chunk.at_end or keys == _CHUNK_ROWS_MAX
    return PruneResult(chunk.row_count, keys, more), chunk.looked_up_to_id


def _account(pruned: PruneResult) -> None:
    metrics.pruned.labels("outbox").inc(pruned.rows)
    metrics.pruned.labels("idempotency_keys").inc(pruned.keys)
    if pruned.rows or pruned.keys:
        log.debug("pruned", rows=pruned.rows, keys=pruned.keys)


async def count_prunable(engine: AsyncEngine, ages: RetentionAges) -> tuple[int, int]:
    """Return how many outbox rows and how many idempotency keys are old enough to leave."""
    async with engine.connect() as connection:
        outbox_before = await retention_queries.before(connection, ages.outbox_days * _DAY_SECONDS)
        keys_before = await retention_queries.before(connection, ages.keys_days * _DAY_SECONDS)
        return await retention_queries.count_prunable(connection, outbox_before, keys_before)


async def prune(engine: AsyncEngine, ages: RetentionAges, reason: str | None = None) -> AsyncIterator[PruneResult]:
    """Do at once, by hand, what the relays do in time; leaves an audit row. Can be stopped at any time.

    Yields:
        What each chunk took, committed.
    """
    rows, keys = await count_prunable(engine, ages)
    async with engine.begin() as connection:
        selection = {"outbox_days": ages.outbox_days, "keys_days": ages.keys_days, "keys": keys}
        said = orjson.dumps(selection).decode()
        await queries.audit(connection, actor(), "prune", said, rows, reason)
    after_id = 0
    more = True
    while more:
        async with engine.begin() as connection:
            await retention_queries.lock(connection, wait=True)
            pruned, after_id = await _prune_chunk(connection, ages, after_id)
        yield pruned
        more = pruned.more
