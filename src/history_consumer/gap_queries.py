"""The SQL of the history's alarms: gaps that stay open, and versions that two events claim."""

from typing import Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

# Takes no snapshot. A REPEATABLE READ transaction that begins with it sees the tables after a rebuild's swap, and keeps
# the next swap out until it ends. A swap between two of its statements would show it the new tables without rows.
KEEP_TABLES: Final = text("LOCK TABLE history.wallet_progress, history.transaction_events IN ACCESS SHARE MODE")

GAP_OLD_SECONDS: Final = 30
"""After this time a gap no longer comes from events that are still on their way: it is an alarm."""

# When the first row after the gap was recorded. `updated_at` alone changes with every event of a busy wallet.
OPEN_SINCE: Final = """
    least(gap.updated_at, (
        SELECT recorded_at FROM history.transaction_events AS event
        WHERE event.wallet_id = gap.wallet_id AND wallet_version > (
            SELECT coalesce(max(wallet_version), 0)
            FROM (
                SELECT wallet_version, row_number() OVER (ORDER BY wallet_version) AS number
                FROM history.transaction_events AS numbered WHERE numbered.wallet_id = gap.wallet_id
            ) AS numbered
            WHERE wallet_version = number
        )
        ORDER BY wallet_version LIMIT 1
    ))
"""

# A wallet without events for that long has an old gap. Of the busy wallets, 100 are looked at row by row.
ALARMS: Final = text(f"""
    WITH gap AS MATERIALIZED (
        SELECT wallet_id, updated_at, statement_timestamp() - make_interval(secs => :old_seconds) AS old_before
        FROM history.wallet_progress WHERE event_count <> max_version
    ), old AS MATERIALIZED (
        SELECT wallet_id FROM gap WHERE updated_at < old_before
        UNION ALL
        SELECT wallet_id FROM (SELECT * FROM gap WHERE updated_at >= old_before ORDER BY updated_at LIMIT 100) AS gap
        WHERE {OPEN_SINCE} < old_before
    )
    SELECT (SELECT count(*) FROM old) AS old_gaps,
        ARRAY(SELECT wallet_id::text FROM old ORDER BY wallet_id LIMIT 10) AS wallets,
        (SELECT count(*) FROM history.dead_letters WHERE reason = 'version-conflict') AS conflicts
""")  # noqa: S608 - constants of this module


async def alarms(connection: AsyncConnection, old_seconds: float = GAP_OLD_SECONDS) -> RowMapping:
    """Return `old_gaps` (how many wallets have a gap that old), up to ten of these `wallets`, and `conflicts`."""
    return (await connection.execute(ALARMS, {"old_seconds": old_seconds})).mappings().one()
