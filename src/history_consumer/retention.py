"""Retention of dead letters: if `DEAD_LETTER_RETENTION_DAYS` is set, each consumer deletes old ones in chunks.

A version conflict is never deleted: it says that two events claim one version of a wallet.
"""

import asyncio
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.pauses import Pauses
from common.worker import database_deadline
from history_consumer import dead_letter_queries, metrics

log = structlog.get_logger()

PAUSES: Final = Pauses(60.0, 60.0)
"""How often a consumer looks for old dead letters while it finds none."""

CHUNK_LETTERS_MAX: Final = 1000
_CHUNK_PAUSE_SECONDS: Final = 0.1
_CHUNK_SECONDS_MAX: Final = 30.0
DAY_SECONDS: Final = 86_400


class DeadLetterRetention:
    """Prunes one chunk at a time, beside the consumer's batches. Any number of consumers may prune."""

    def __init__(self, engine: AsyncEngine, days: float) -> None:
        self._engine = engine
        self._days = days

    async def run_once(self) -> int:
        """Prune one chunk; return 1 if more dead letters may be due, else 0.

        Raises:
            TemporaryError: PostgreSQL is away or too busy.
        """
        async with database_deadline(_CHUNK_SECONDS_MAX):
            count = await prune_chunk(self._engine, self._days)
        metrics.dead_letters_pruned.inc(count)
        if count:
            log.info("dead_letters_pruned", count=count)
        if count < CHUNK_LETTERS_MAX:
            return 0
        await asyncio.sleep(_CHUNK_PAUSE_SECONDS)
        return 1


async def prune_chunk(engine: AsyncEngine, days: float, reason: str | None = None) -> int:
    """Delete one chunk of dead letters that are this old, of one reason or of any; return how many."""
    async with engine.begin() as connection:
        return await dead_letter_queries.prune(connection, days * DAY_SECONDS, reason, CHUNK_LETTERS_MAX)
