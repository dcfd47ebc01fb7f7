"""The SQL of outbox ids: find rows whose ids are too low, and renumber them."""

from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.identifiers import LANES
from outbox_relay.leases import lock_lanes
from outbox_relay.queries import HIGHEST_ID

# One session renumbers at a time; the next one finds nothing left to do.
LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('wallet outbox numbering', 0))")

# No transaction writes an event meanwhile, so none takes an id.
LOCK_OUTBOX: Final = text("LOCK TABLE wallet.outbox IN SHARE ROW EXCLUSIVE MODE")

IDS: Final = text(f"SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END, {HIGHEST_ID} FROM wallet.outbox_id_seq")  # noqa: S608

# Reads the dead index entries that the low water lets relays skip: it may be slow.
ANY_STRANDED: Final = text("""
    SELECT EXISTS (
        SELECT FROM wallet.outbox_lanes AS lanes
        CROSS JOIN LATERAL (
            SELECT FROM wallet.outbox
            WHERE outbox.lane = lanes.lane AND outbox.id <= lanes.low_water
                AND published_at IS NULL AND parked_at IS NULL
            LIMIT 1
        ) AS stranded
    )
""")

# A row is misplaced if its id was handed out twice, or is below the low water. All unpublished rows of its wallet move.
# They keep the order of their times, which is that of the wallet's versions: the row written last is published last.
MOVE_MISPLACED: Final = text("""
    WITH misplaced AS (
        SELECT DISTINCT found.lane, found.aggregate_id
        FROM wallet.outbox_lanes AS lanes
        CROSS JOIN LATERAL (
            SELECT lane, aggregate_id FROM wallet.outbox
            WHERE outbox.lane = lanes.lane AND outbox.id <= greatest(lanes.low_water, :reused_id)
                AND published_at IS NULL AND parked_at IS NULL
        ) AS found
    ), chosen AS (
        SELECT outbox.id FROM misplaced
        JOIN wallet.outbox ON outbox.lane = misplaced.lane AND outbox.aggregate_id = misplaced.aggregate_id
        WHERE published_at IS NULL AND parked_at IS NULL
        UNION ALL
        SELECT outbox.id FROM misplaced JOIN wallet.outbox ON outbox.aggregate_id = misplaced.aggregate_id
        WHERE parked_at IS NOT NULL AND skipped_at IS NULL
    ), taken AS (
        DELETE FROM wallet.outbox USING chosen WHERE outbox.id = chosen.id RETURNING outbox.*
    ), moved AS (
        INSERT INTO wallet.outbox (
            id, event_id, aggregate_id, lane, event_type, payload, headers, created_at, attempts, last_error,
            parked_at, source_epoch
        )
        OVERRIDING SYSTEM VALUE
        SELECT :above_id + row_number() OVER (ORDER BY created_at, id), event_id, aggregate_id, lane, event_type,
            payload, headers, created_at, attempts, last_error, parked_at, source_epoch
        FROM taken
        RETURNING id
    )
    SELECT count(*) FROM moved
""")

SET_SEQUENCE: Final = text("SELECT setval('wallet.outbox_id_seq', :last_id)")

SET_STATEMENT_TIMEOUT: Final = text("SELECT set_config('statement_timeout', :milliseconds, true)")


class Ids(NamedTuple):
    """The last id that the sequence handed out, and the highest id of which the tables have a trace."""

    last_id: int
    highest_id: int


async def lock(connection: AsyncConnection) -> None:
    """Lock all lanes and block the API's writes until the transaction ends."""
    await connection.execute(LOCK)
    await lock_lanes(connection, range(LANES))
    await connection.execute(LOCK_OUTBOX)


async def ids(connection: AsyncConnection) -> Ids:
    """Return the sequence's last id, and the id that it must be at least."""
    return Ids(*(await connection.execute(IDS)).one())


async def is_any_stranded(connection: AsyncConnection, seconds_max: float) -> bool:
    """Return whether a pending row is below its lane's low water.

    PostgreSQL cancels the query after `seconds_max`; 0 means never.
    """
    await connection.execute(SET_STATEMENT_TIMEOUT, {"milliseconds": str(round(seconds_max * 1000))})
    return bool(await connection.scalar(ANY_STRANDED))


async def move_misplaced(connection: AsyncConnection, reused_id: int, above_id: int) -> int:
    """Give misplaced rows ids above `above_id`; return how many. Ids up to `reused_id` may have been given twice."""
    parameters = {"reused_id": reused_id, "above_id": above_id}
    return int((await connection.execute(MOVE_MISPLACED, parameters)).scalar_one())


async def set_sequence(connection: AsyncConnection, last_id: int) -> None:
    """Set the sequence, so that the next id is the one after `last_id`."""
    await connection.execute(SET_SEQUENCE, {"last_id": last_id})
