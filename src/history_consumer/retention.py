"""Retention of dead letters, where it is wanted: old ones leave in chunks.

One that claims a version which another event has never leaves: it says that two histories are told.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.pauses import Pauses
from history_consumer import dead_letter_queries, metrics
from history_consumer.consumer.failures import database_errors

log = structlog.get_logger()

PAUSES: Final = Pauses(60.0, 60.0)
"""How often a consumer looks for old letters while there are none."""

_CHUNK_LETTERS_MAX: Final = 1000
_CHUNK_PAUSE_SECONDS: Final = 0.1
_DAY_SECONDS: Final = 86_400


class DeadLetterRetention:
    """A consumer's pruner: one chunk at a time, beside the batches. Any number may run."""

    def __init__(self, engine: AsyncEngine, days: float) -> None:
        self._engine = engine
        self._days = days

    async def run_once(self) -> int:
        """Prune one chunk; return 1 if there may be more to do now, else 0.

        Raises:
            TemporaryError: PostgreSQL is away, or too busy for this.
        """
        with database_errors():
            count = await _prune_chunk(self._engine, self._days, None)
        metrics.dead_letters_pruned.inc(count)
        if count:
            log.info("dead_letters_pruned", count=count)
        if count < _CHUNK_LETTERS_MAX:
            return 0
        await asyncio.sleep(_CHUNK_PAUSE_SECONDS)
        return 1


async def prune(engine: AsyncEngine, days: float, reason: str | None = None) -> AsyncIterator[int]:
    """Do at once, by hand, what the consumers do in time: all letters that old, or those put aside for this reason.

    Yields:
        How many each chunk took, committed.
    """
    count = _CHUNK_LETTERS_MAX
    while count == _CHUNK_LETTERS_MAX:
        count = await _prune_chunk(engine, days, reason)
        yield count


async def count_prunable(engine: AsyncEngine, days: float, reason: str | None = None) -> tuple[int, int]:
    """Return how many letters are old enough to leave, and how many stay though they are, as conflicts do."""
    async with engine.connect() as connection:
        return await dead_letter_queries.count_prunable(connection, days * _DAY_SECONDS, reason)


async def _prune_chunk(engine: AsyncEngine, days: float, reason: str | None) -> int:
    async with engine.begin() as connection:
        return await dead_letter_queries.prune(connection, days * _DAY_SECONDS, reason, _CHUNK_LETTERS_MAX)
