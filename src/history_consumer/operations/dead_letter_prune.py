"""Pruning dead letters at once, as `walletctl history dead-letters prune` does."""

from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncEngine

from history_consumer import dead_letter_queries
from history_consumer.retention import CHUNK_LETTERS_MAX, DAY_SECONDS, prune_chunk


async def prune_dead_letters(engine: AsyncEngine, days: float, reason: str | None = None) -> AsyncIterator[int]:
    """Delete all dead letters that are this old, but no version conflict.

    Args:
        engine: of the history's database.
        days: how old, at least.
        reason: only those with this reason.

    Yields:
        How many each chunk deleted, committed.
    """
    count = CHUNK_LETTERS_MAX
    while count == CHUNK_LETTERS_MAX:
        count = await prune_chunk(engine, days, reason)
        yield count


async def count_prunable(engine: AsyncEngine, days: float, reason: str | None = None) -> tuple[int, int]:
    """Return how many dead letters are old enough to be deleted, and how many version conflicts of that age stay."""
    async with engine.connect() as connection:
        return await dead_letter_queries.count_prunable(connection, days * DAY_SECONDS, reason)
