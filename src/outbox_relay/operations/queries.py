"""The SQL of inspection, replay and audit. parking_queries.py has that of parking."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox_relay.leases import lock_lanes
from outbox_relay.queries import HIGHEST_ID

# A filter that is NULL matches every row.
_SELECTED: Final = """
    (cast(:from_id AS bigint) IS NULL OR id >= :from_id) AND (cast(:to_id AS bigint) IS NULL OR id <= :to_id)
    AND (cast(:wallet_id AS uuid) IS NULL OR aggregate_id = :wallet_id)
    AND (cast(:event_type AS text) IS NULL OR event_type = :event_type)
    AND (cast(:created_from AS timestamptz) IS NULL OR created_at >= :created_from)
    AND (cast(:created_to AS timestamptz) IS NULL OR created_at < :created_to)
"""
_STATES: Final = {
    "all": "true",
    "pending": "published_at IS NULL AND parked_at IS NULL",
    "parked": "parked_at IS NOT NULL AND skipped_at IS NULL",
    "skipped": "skipped_at IS NOT NULL",
    "published": "published_at IS NOT NULL",
}
_SHOWN: Final = """
    id, event_id, aggregate_id AS wallet_id, lane, event_type, created_at, published_at, kafka_partition,
    kafka_offset, attempts, parked_at, skipped_at, last_error, source_epoch
"""

STATUS: Final = text(f"""
    SELECT
        (SELECT count(*) FROM wallet.outbox WHERE published_at IS NULL AND parked_at IS NULL) AS pending,
        (SELECT count(*) FROM wallet.outbox WHERE parked_at IS NOT NULL AND skipped_at IS NULL) AS parked,
        (SELECT count(DISTINCT aggregate_id) FROM wallet.outbox
            WHERE parked_at IS NOT NULL AND skipped_at IS NULL) AS parked_wallets,
        (SELECT extract(epoch FROM statement_timestamp() - min(created_at))::float FROM wallet.outbox
            WHERE published_at IS NULL AND parked_at IS NULL) AS oldest_pending_seconds,
        (SELECT max(id) FROM wallet.outbox) AS last_id,
        (SELECT min(low_water) FROM wallet.outbox_lanes) AS lowest_low_water,
        (SELECT count(*) FROM wallet.outbox JOIN wallet.outbox_lanes AS lanes ON lanes.lane = outbox.lane
            WHERE published_at IS NULL AND parked_at IS NULL AND outbox.id <= lanes.low_water) AS stranded,
        coalesce(greatest({HIGHEST_ID} - pg_sequence_last_value('wallet.outbox_id_seq'), 0), 0) AS sequence_behind,
        (SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE '%outbox-relay') AS relay_sessions
""")  # noqa: S608 - a constant of this module

LIST_ROWS: Final = {
    state: text(f"SELECT {_SHOWN} FROM wallet.outbox WHERE {where} AND {_SELECTED} ORDER BY id DESC LIMIT :limit")  # noqa: S608
    for state, where in _STATES.items()
}

SHOW_ROW: Final = text(f"""
    SELECT {_SHOWN}, payload, headers FROM wallet.outbox
    WHERE id = cast(:id AS bigint) OR event_id = cast(:event_id AS uuid)
""")  # noqa: S608

COUNT_REPLAYABLE: Final = text(
    f"SELECT count(*), min(id), max(id) FROM wallet.outbox WHERE published_at IS NOT NULL AND {_SELECTED}"  # noqa: S608
)

NEXT_REPLAYABLE: Final = text(f"""
    SELECT id, lane FROM wallet.outbox
    WHERE published_at IS NOT NULL AND id > :after_id AND {_SELECTED}
    ORDER BY id LIMIT :limit
""")  # noqa: S608

# In the present epoch: after a restore, consumers take no events of older epochs.
UNPUBLISH: Final = text("""
    UPDATE wallet.outbox SET published_at = NULL, kafka_partition = NULL, kafka_offset = NULL,
        source_epoch = (SELECT max(epoch) FROM wallet.source_epochs)
    WHERE id = ANY(cast(:ids AS bigint[])) AND published_at IS NOT NULL
""")

LOWER_LOW_WATER: Final = text("""
    UPDATE wallet.outbox_lanes SET low_water = :low_water
    WHERE lane = ANY(cast(:lanes AS smallint[])) AND low_water > :low_water
""")

AUDIT: Final = text("""
    INSERT INTO wallet.outbox_audit (actor, action, selection, row_count, reason)
    VALUES (:actor, :action, cast(:selection AS jsonb), :row_count, :reason)
""")


async def status(connection: AsyncConnection) -> RowMapping:
    """Return counts and ages of the whole outbox."""
    return (await connection.execute(STATUS)).mappings().one()


async def list_rows(
    connection: AsyncConnection, state: str, selection: Mapping[str, Any], limit: int
) -> Sequence[RowMapping]:
    """Return rows without their payload, newest first."""
    return (await connection.execute(LIST_ROWS[state], {**selection, "limit": limit})).mappings().all()


async def show_row(connection: AsyncConnection, row_id: int | None, event_id: UUID | None) -> RowMapping | None:
    """Return one row with its payload and headers."""
    return (await connection.execute(SHOW_ROW, {"id": row_id, "event_id": event_id})).mappings().one_or_none()


async def count_replayable(connection: AsyncConnection, selection: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return how many published rows are selected, and their lowest and highest id."""
    count, lowest, highest = (await connection.execute(COUNT_REPLAYABLE, selection)).one()
    return count, lowest or 0, highest or 0


async def make_pending(
    connection: AsyncConnection, selection: Mapping[str, Any], after_id: int, limit: int
) -> list[int]:
    """Make the next published rows of the selection pending again; return their ids, ascending.

    Locks their lanes, so that no relay publishes from them meanwhile, and lowers the lanes' low waters below the rows.
    """
    parameters = {**selection, "after_id": after_id, "limit": limit}
    rows = (await connection.execute(NEXT_REPLAYABLE, parameters)).all()
    if not rows:
        return []
    ids, lanes = [row.id for row in rows], sorted({row.lane for row in rows})
    await lock_lanes(connection, lanes)
    await connection.execute(UNPUBLISH, {"ids": ids})
    await connection.execute(LOWER_LOW_WATER, {"lanes": lanes, "low_water": ids[0] - 1})
    return ids


async def audit(
    connection: AsyncConnection, actor: str, action: str, selection: str, row_count: int, reason: str | None
) -> None:
    """Record an operator's action."""
    parameters = {
        "actor": actor,
        "action": action,
        "selection": selection,
        "row_count": row_count,
        "reason": reason,
    }
    await connection.execute(AUDIT, parameters)
