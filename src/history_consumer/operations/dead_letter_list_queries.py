"""The SQL of dead letters as operators see them."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

DEAD_LETTERS: Final = text("""
    SELECT id, topic, partition, "offset", reason, detail, created_at FROM history.dead_letters
    WHERE id < :before AND (cast(:reason AS text) IS NULL OR reason = :reason)
    ORDER BY id DESC LIMIT :limit
""")

DEAD_LETTER: Final = text("SELECT * FROM history.dead_letters WHERE id = :id")


async def dead_letters(
    connection: AsyncConnection, reason: str | None, before: int, limit: int
) -> Sequence[RowMapping]:
    """Return dead letters below the id `before`, newest first, without their contents."""
    parameters = {"reason": reason, "before": before, "limit": limit}
    return (await connection.execute(DEAD_LETTERS, parameters)).mappings().all()


async def dead_letter(connection: AsyncConnection, dead_letter_id: int) -> RowMapping | None:
    """Return one dead letter, whole."""
    return (await connection.execute(DEAD_LETTER, {"id": dead_letter_id})).mappings().one_or_none()
