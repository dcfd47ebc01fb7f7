"""The SQL of alarms: gaps that stay open, versions that two events claim."""

from typing import Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

# Takes no snapshot itself: a REPEATABLE READ that begins with it sees all that a rebuild's swap left, and there is no
# other swap until it ends. One between two of its statements would show it new tables as they were before.
KEEP_TABLES: Final = text("LOCK TABLE history.wallet_progress, history.transaction_events IN ACCESS SHARE MODE")

GAP_OLD_SECONDS: Final = 30
"""A gap that has stood open for so long isn't a matter of events on their way any more: an alarm."""

# When the first row behind the hole came. `updated_at` alone moves with every event of a busy wallet.
_OPEN_SINCE: Final = """
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

# Wallets that were left alone for so long need no second look; of the busy ones, so many as a look can bear.
ALARMS: Final = text(f"""
    WITH gap AS MATERIALIZED (
        SELECT wallet_id, updated_at, statement_timestamp() - make_interval(secs => :old_seconds) AS horizon
        FROM history.wallet_progress WHERE event_count <> max_version
    ), old AS MATERIALIZED (
        SELECT wallet_id FROM gap WHERE updated_at < horizon
        UNION ALL
        SELECT wallet_id FROM (SELECT * FROM gap WHERE updated_at >= horizon ORDER BY updated_at LIMIT 100) AS gap
        WHERE {_OPEN_SINCE} < horizon
    )
    SELECT (SELECT count(*) FROM old) AS old_gaps,
        ARRAY(SELECT wallet_id::text FROM old ORDER BY wallet_id LIMIT 10) AS wallets,
        (SELECT count(*) FROM history.dead_letters WHERE reason = 'version-conflict') AS conflicts
""")  # noqa: S608 - constants of this module


async def alarms(connection: AsyncConnection, old_seconds: float = GAP_OLD_SECONDS) -> RowMapping:
    """Return `old_gaps` (wallets with a gap that old), up to ten of these `wallets`, and `conflicts`."""
    return (await connection.execute(ALARMS, {"old_seconds": old_seconds})).mappings().one()
