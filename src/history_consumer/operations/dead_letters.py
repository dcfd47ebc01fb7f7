"""The list of dead letters, and one of them whole, as operators see them."""

from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from history_consumer import dead_letter_queries
from history_consumer.consumer.records import readable

_ID_MAX: Final = 2**63 - 1


async def list_dead_letters(
    engine: AsyncEngine, *, reason: str | None = None, before: int = _ID_MAX, limit: int = 50
) -> list[dict[str, Any]]:
    """Return dead letters, newest first: `id, topic, partition, offset, reason, detail, created_at`.

    Args:
        engine: of the history's database.
        reason: only those with this reason.
        before: only those below this id; the last id of a page gives the next page.
        limit: how many at most.
    """
    async with engine.connect() as connection:
        return [dict(row) for row in await dead_letter_queries.page(connection, reason, before, limit)]


async def show_dead_letter(engine: AsyncEngine, dead_letter_id: int) -> dict[str, Any] | None:
    """Return one dead letter, whole, or None; key and value as text, or `{"base64": …}` where they aren't UTF-8."""
    async with engine.connect() as connection:
        row = await dead_letter_queries.find(connection, dead_letter_id)
    if row is None:
        return None
    return {**row, "key": readable(row["key"]), "value": readable(row["value"]), "headers": row["headers"]}
