"""The SQL of dead letters once they are put aside: reading, retrying, letting old ones go."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.events import FIRST_SOURCE_EPOCH
from history_consumer.consumer.deduplication import VERSION_CONFLICT
from history_consumer.consumer.records import Poison

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

LAST: Final = text("SELECT coalesce(max(id), 0) FROM history.dead_letters")

DELETE: Final = text("DELETE FROM history.dead_letters WHERE id = ANY(cast(:ids AS bigint[]))")

EXPLAIN: Final = text("""
    UPDATE history.dead_letters AS stored SET reason = row.reason, detail = row.detail
    FROM unnest(cast(:ids AS bigint[]), cast(:reasons AS text[]), cast(:details AS text[])) AS row (id, reason, detail)
    WHERE stored.id = row.id AND (stored.reason, stored.detail) IS DISTINCT FROM (row.reason, row.detail)
""")

_PRUNABLE: Final = """
    created_at < statement_timestamp() - make_interval(secs => :age_seconds)
    AND (cast(:reason AS text) IS NULL OR reason = :reason)
"""

# A retry has some of them in hand: these stay until the next time.
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


async def read(
    connection: AsyncConnection, selection: Mapping[str, Any], after_id: int, up_to_id: int, limit: int
) -> Sequence[RowMapping]:
    """Return dead letters behind `after_id` in their order, each with the epoch of its topic's positions.

    `selection` has `id` and `reason`, or None.
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
    """Return those that are there still, locked, in their order."""
    return list((await connection.execute(LOCK, {"ids": list(ids)})).scalars())


async def last(connection: AsyncConnection) -> int:
    """Return the highest id of a dead letter, or 0."""
    return int(await connection.scalar(LAST) or 0)


async def delete(connection: AsyncConnection, ids: Iterable[int]) -> None:
    """Remove these."""
    await connection.execute(DELETE, {"ids": list(ids)})


async def explain(connection: AsyncConnection, why: Mapping[int, Poison]) -> None:
    """Note why these are dead letters now."""
    parameters = {
        "ids": list(why),
        "reasons": [poison.reason for poison in why.values()],
        "details": [poison.detail for poison in why.values()],
    }
    await connection.execute(EXPLAIN, parameters)


async def prune(connection: AsyncConnection, age_seconds: float, reason: str | None, limit: int) -> int:
    """Delete letters that old, of any reason or this one, but no conflict; return how many."""
    parameters = {"age_seconds": age_seconds, "reason": reason, "limit": limit, "kept": VERSION_CONFLICT}
    return (await connection.execute(PRUNE, parameters)).rowcount


async def count_prunable(connection: AsyncConnection, age_seconds: float, reason: str | None) -> tuple[int, int]:
    """Return how many letters of that age may go, and how many conflicts of that age stay."""
    parameters = {"age_seconds": age_seconds, "reason": reason, "kept": VERSION_CONFLICT}
    prunable, kept = (await connection.execute(COUNT_PRUNABLE, parameters)).one()
    return prunable, kept
