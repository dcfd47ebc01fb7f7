"""The SQL of `walletctl history status`."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from history_consumer.gap_queries import GAP_OLD_SECONDS, OPEN_SINCE

STATUS: Final = text("""
    SELECT
        count(*) AS wallets,
        coalesce(sum(event_count), 0)::bigint AS events,
        count(*) FILTER (WHERE event_count <> max_version) AS gaps,
        (SELECT count(*) FROM history.dead_letters) AS dead_letters
    FROM history.wallet_progress
""")

OLDEST_GAPS: Final = text(f"""
    SELECT *, open_since < statement_timestamp() - make_interval(secs => :old_seconds) AS is_old
    FROM (
        SELECT wallet_id, user_id, event_count, max_version, updated_at, {OPEN_SINCE} AS open_since
        FROM (
            SELECT * FROM history.wallet_progress WHERE event_count <> max_version ORDER BY updated_at LIMIT :limit
        ) AS gap
    ) AS gap
    ORDER BY open_since
""")  # noqa: S608 - constants of this module

POSITIONS: Final = text("""
    SELECT consumer_group, topic, partition, next_offset, topic_id, source_epoch, updated_at
    FROM history.processed_offsets
    ORDER BY consumer_group, topic, partition
""")


async def status(connection: AsyncConnection) -> RowMapping:
    """Return the counts of wallets, events, wallets with gaps and dead letters."""
    return (await connection.execute(STATUS)).mappings().one()


async def oldest_gaps(connection: AsyncConnection, limit: int) -> Sequence[RowMapping]:
    """Return wallets that have a gap, the oldest gap first, with `open_since` and `is_old`."""
    parameters = {"limit": limit, "old_seconds": GAP_OLD_SECONDS}
    return (await connection.execute(OLDEST_GAPS, parameters)).mappings().all()


async def positions(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Return the positions of all groups."""
    return (await connection.execute(POSITIONS)).mappings().all()
