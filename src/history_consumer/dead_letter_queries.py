"""The SQL of stored dead letters: listing, retrying, pruning."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.events.headers import FIRST_SOURCE_EPOCH
from history_consumer.consumer.deduplication import VERSION_CONFLICT
from history_consumer.consumer.records import Poison

PAGE: Final = text("""
    SELECT id, topic, partition, "offset", reason, detail, created_at FROM history.dead_letters
    WHERE id < :before AND (cast(:reason AS text) IS NULL OR reason = :reason)
    ORDER BY id DESC LIMIT :limit
""")

FIND: Final = text("SELECT * FROM history.dead_letters WHERE id = :id")

READ: Final = text("""
    SELECT id, topic, partition, "offset", topic_id, key, value, headers, coalesce((
        SELECT min(source_epoch) FROM history.processed_offsets AS stored WHERE stored.topic = dead_letters.topic
    ), :first_epoch) AS source_epoch
    FROM history.dead_letters
    WHERE id > :after_id AND id <= :up_to_id
        AND (cast(:id AS bigint) IS NULL OR id = :id) AND (cast(:reason AS text) IS NULL OR reason = :reason)
    ORDER BY id LIMIT :limit
""")

LOCK: Final = text("""
    SELECT id FROM history.dead_letters WHERE id = ANY(cast(:ids AS bigint[])) ORDER BY id FOR UPDATE
""")

LAST_ID: Final = text("SELECT coalesce(max(id), 0) FROM history.dead_letters")

DELETE: Final = text("DELETE FROM history.dead_letters WHERE id = ANY(cast(:ids AS bigint[]))")

UPDATE_REASONS: Final = text("""
    UPDATE history.dead_letters AS stored SET reason = row.reason, detail = row.detail
    FROM unnest(cast(:ids AS bigint[]), cast(:reasons AS text[]), cast(:details AS text[])) AS row (id, reason, detail)
    WHERE stored.id = row.id AND (stored.reason, stored.detail) IS DISTINCT FROM (row.reason, row.detail)
""")

_PRUNABLE: Final = """
    created_at < statement_timestamp() - make_interval(secs => :age_seconds)
    AND (cast(:reason AS text) IS NULL OR reason = :reason)
"""

# A retry has locked some of them: these stay until the next pruning.
PRUNE: Final = text(f"""
    WITH old AS (
        SELECT id FROM history.dead_letters WHERE {_PRUNABLE} AND reason <> :kept
        ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    DELETE FROM history.dead_letters AS letter USING old WHERE letter.id = old.id
""")  # noqa: S608 - a constant of this module

COUNT_PRUNABLE: Final = text(f"""
    SELECT count(*) FILTER (WHERE reason <> :kept), count(*) FILTER (WHERE reason = :kept)
    FROM history.dead_letters WHERE {_PRUNABLE}
""")  # noqa: S608 - a constant of this module


async def page(connection: AsyncConnection, reason: str | None, before: int, limit: int) -> Sequence[RowMapping]:
    """Return dead letters below the id `before`, newest first, without key, value and headers."""
    parameters = {"reason": reason, "before": before, "limit": limit}
    return (await connection.execute(PAGE, parameters)).mappings().all()


async def find(connection: AsyncConnection, dead_letter_id: int) -> RowMapping | None:
    """Return one dead letter, whole, or None."""
    return (await connection.execute(FIND, {"id": dead_letter_id})).mappings().one_or_none()


async def read(
    connection: AsyncConnection, selection: Mapping[str, Any], after_id: int, up_to_id: int, limit: int
) -> Sequence[RowMapping]:
    """Return dead letters by id, each with the source epoch of its topic's positions.

    Args:
        connection: to the history's database.
        selection: `id` and `reason`, each None for any.
        after_id: only those above this id.
        up_to_id: only those up to this id.
        limit: how many at most.
    """
    parameters = {
        **selection,
        "after_id": after_id,
        "up_to_id": up_to_id,
        "limit": limit,
        "first_epoch": FIRST_SOURCE_EPOCH,
    }
    return (await connection.execute(READ, parameters)).mappings().all()


async def lock(connection: AsyncConnection, ids: Iterable[int]) -> list[int]:
    """Lock the dead letters that still exist; return their ids in order."""
    return list((await connection.execute(LOCK, {"ids": list(ids)})).scalars())


async def last_id(connection: AsyncConnection) -> int:
    """Return the highest id of a dead letter, or 0."""
    return int(await connection.scalar(LAST_ID) or 0)


async def delete(connection: AsyncConnection, ids: Iterable[int]) -> None:
    """Delete the dead letters with these ids."""
    await connection.execute(DELETE, {"ids": list(ids)})


async def update_reasons(connection: AsyncConnection, reasons: Mapping[int, Poison]) -> None:
    """Store why these can't be applied now."""
    parameters = {
        "ids": list(reasons),
        "reasons": [poison.reason for poison in reasons.values()],
        "details": [poison.detail for poison in reasons.values()],
    }
    await connection.execute(UPDATE_REASONS, parameters)


async def prune(connection: AsyncConnection, age_seconds: float, reason: str | None, limit: int) -> int:
    """Delete dead letters of that age, but no version conflict; return how many.

    Args:
        connection: in a transaction.
        age_seconds: at least.
        reason: only those with this reason, or None for any.
        limit: how many at most.
    """
    parameters = {"age_seconds": age_seconds, "reason": reason, "limit": limit, "kept": VERSION_CONFLICT}
    return (await connection.execute(PRUNE, parameters)).rowcount


async def count_prunable(connection: AsyncConnection, age_seconds: float, reason: str | None) -> tuple[int, int]:
    """Return how many dead letters of that age `prune` deletes, and how many version conflicts of that age stay."""
    parameters = {"age_seconds": age_seconds, "reason": reason, "kept": VERSION_CONFLICT}
    prunable, kept = (await connection.execute(COUNT_PRUNABLE, parameters)).one()
    return prunable, kept
