"""The SQL of retention. It never waits for a row's lock: a locked row stays until the next pass."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# One pruner at a time: while another prunes, a relay does nothing, and an operator's command waits.
_LOCK: Final = "hashtextextended('wallet outbox retention', 0)"
TRY_LOCK: Final = text(f"SELECT pg_try_advisory_xact_lock({_LOCK})")
LOCK: Final = text(f"SELECT pg_advisory_xact_lock({_LOCK})")

BEFORE: Final = text("SELECT statement_timestamp() - make_interval(secs => :age_seconds)")

# Ids rise with created_at, so the primary key leads to the oldest rows, and no other index is needed. Each row is
# checked again under its lock, because a replay may have made it pending meanwhile.
PRUNE_OUTBOX: Final = text("""
    WITH chunk AS MATERIALIZED (
        SELECT id, created_at >= :before AS young FROM wallet.outbox WHERE id > :after_id ORDER BY id LIMIT :limit
    ), finished AS (
        SELECT outbox.id FROM chunk JOIN wallet.outbox ON outbox.id = chunk.id
        WHERE outbox.created_at < :before AND outbox.published_at < :before
        FOR UPDATE OF outbox SKIP LOCKED
    ), pruned AS (
        DELETE FROM wallet.outbox USING finished WHERE outbox.id = finished.id
        RETURNING outbox.id, outbox.created_at,
            CASE WHEN pg_input_is_valid(payload::text, 'jsonb') THEN
                CASE json_typeof(payload -> 'wallets') WHEN 'array' THEN json_array_length(payload -> 'wallets') END
            END AS versions
    ), noted AS (
        UPDATE wallet.outbox_pruned
        SET row_count = outbox_pruned.row_count + taken.row_count,
            version_count = outbox_pruned.version_count + taken.version_count,
            up_to_id = greatest(outbox_pruned.up_to_id, taken.up_to_id),
            up_to_created_at = greatest(outbox_pruned.up_to_created_at, taken.up_to_created_at)
        FROM (
            SELECT count(*) AS row_count, coalesce(sum(versions), 0) AS version_count, max(id) AS up_to_id,
                max(created_at) AS up_to_created_at
            FROM pruned HAVING count(*) > 0
        ) AS taken
    )
    SELECT (SELECT count(*) FROM pruned) AS row_count, count(*) < :limit OR bool_or(young) AS at_end,
        coalesce(min(id) FILTER (WHERE young) - 1, max(id), :after_id) AS scanned_up_to_id
    FROM chunk
""")

PRUNE_KEYS: Final = text("""
    WITH old AS (
        SELECT caller_id, key FROM wallet.idempotency_keys WHERE created_at < :before
        LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    DELETE FROM wallet.idempotency_keys AS stored USING old
    WHERE (stored.caller_id, stored.key) = (old.caller_id, old.key)
""")

COUNT_PRUNABLE: Final = text("""
    SELECT
        (SELECT count(*) FROM wallet.outbox WHERE created_at < :outbox_before AND published_at < :outbox_before),
        (SELECT count(*) FROM wallet.idempotency_keys WHERE created_at < :keys_before)
""")


@dataclass(frozen=True, slots=True)
class OutboxChunk:
    """How many rows of a chunk were deleted, whether all later rows are too young, and up to which id it scanned."""

    row_count: int
    at_end: bool
    scanned_up_to_id: int


async def lock(connection: AsyncConnection, *, wait: bool) -> bool:
    """Become the only pruner until the transaction ends; return False if another one prunes."""
    return await connection.scalar(LOCK if wait else TRY_LOCK) is not False


async def before(connection: AsyncConnection, age_seconds: float) -> datetime:
    """Return the time that many seconds ago, by the database's clock."""
    time: datetime = (await connection.execute(BEFORE, {"age_seconds": age_seconds})).scalar_one()
    return time


async def prune_outbox(connection: AsyncConnection, older_than: datetime, after_id: int, limit: int) -> OutboxChunk:
    """Of the next rows after `after_id`, delete those that were written and published before `older_than`."""
    parameters = {"before": older_than, "after_id": after_id, "limit": limit}
    row = (await connection.execute(PRUNE_OUTBOX, parameters)).one()
    return OutboxChunk(row.row_count, row.at_end is not False, row.scanned_up_to_id)


async def prune_keys(connection: AsyncConnection, older_than: datetime, limit: int) -> int:
    """Delete keys that were written before `older_than`; return how many."""
    return (await connection.execute(PRUNE_KEYS, {"before": older_than, "limit": limit})).rowcount


async def count_prunable(
    connection: AsyncConnection, outbox_older_than: datetime, keys_older_than: datetime
) -> tuple[int, int]:
    """Return how many outbox rows and how many keys are old enough. Scans both tables."""
    parameters = {"outbox_before": outbox_older_than, "keys_before": keys_older_than}
    rows, keys = (await connection.execute(COUNT_PRUNABLE, parameters)).one()
    return rows, keys
