"""The relay's SQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database import Statement
from outbox_relay.low_water import Moment
from outbox_relay.outcomes import Parked, Published

# The lanes with the oldest pending rows that no other relay holds. A statement of its own: what it waits for
# is locks, what the next one reads must be a snapshot taken after them. (Read in the same snapshot, a lane
# that another relay settled in between would be published again.)
LOCK_LANES: Final = Statement("""
    SELECT lanes.lane, lanes.low_water
    FROM wallet.outbox_lanes AS lanes
    CROSS JOIN LATERAL (
        SELECT id FROM wallet.outbox
        WHERE outbox.lane = lanes.lane AND outbox.id > lanes.low_water
            AND published_at IS NULL AND parked_at IS NULL
        ORDER BY id LIMIT 1
    ) AS oldest
    ORDER BY oldest.id
    LIMIT :lanes_max
    FOR UPDATE OF lanes SKIP LOCKED
""")

READ_PENDING: Final = Statement("""
    SELECT pending.*
    FROM unnest(cast(:lanes AS smallint[]), cast(:low_waters AS bigint[])) AS claimed (lane, low_water)
    CROSS JOIN LATERAL (
        SELECT id, lane, event_id::text, aggregate_id::text, event_type, payload::text, headers::text, created_at,
            source_epoch,
            -- Once for all rows: as a rule nothing is parked.
            EXISTS (SELECT FROM wallet.outbox AS parked WHERE parked_at IS NOT NULL AND skipped_at IS NULL)
            AND EXISTS (
                SELECT FROM wallet.outbox AS parked
                WHERE parked.aggregate_id = outbox.aggregate_id AND parked.id < outbox.id
                    AND parked.parked_at IS NOT NULL AND parked.skipped_at IS NULL
            ) AS waits
        FROM wallet.outbox
        WHERE outbox.lane = claimed.lane AND outbox.id > claimed.low_water
            AND published_at IS NULL AND parked_at IS NULL
        ORDER BY id LIMIT :lane_rows_max
    ) AS pending
    ORDER BY id
""")

ANY_PENDING: Final = Statement("""
    SELECT EXISTS (
        SELECT FROM wallet.outbox_lanes AS lanes
        JOIN wallet.outbox ON outbox.lane = lanes.lane AND outbox.id > lanes.low_water
            AND published_at IS NULL AND parked_at IS NULL
    )
""")

SETTLE: Final = Statement("""
    UPDATE wallet.outbox
    SET published_at = statement_timestamp(), kafka_partition = settled.partition,
        kafka_offset = settled.position, attempts = attempts + 1, last_error = NULL
    FROM unnest(cast(:ids AS bigint[]), cast(:partitions AS integer[]), cast(:offsets AS bigint[]))
        AS settled (id, partition, position)
    WHERE outbox.id = settled.id
""")

PARK: Final = Statement("""
    UPDATE wallet.outbox
    SET parked_at = statement_timestamp(), attempts = outbox.attempts + parked.attempts, last_error = parked.error
    FROM unnest(cast(:ids AS bigint[]), cast(:attempts AS integer[]), cast(:errors AS text[]))
        AS parked (id, attempts, error)
    WHERE outbox.id = parked.id
""")

RAISE_LOW_WATER: Final = Statement("""
    UPDATE wallet.outbox_lanes
    SET low_water = raised.low_water
    FROM unnest(cast(:lanes AS smallint[]), cast(:low_waters AS bigint[])) AS raised (lane, low_water)
    WHERE outbox_lanes.lane = raised.lane AND outbox_lanes.low_water < raised.low_water
""")

HIGHEST_ID: Final = """greatest(
    (SELECT max(id) FROM wallet.outbox), (SELECT max(low_water) FROM wallet.outbox_lanes),
    (SELECT up_to_id FROM wallet.outbox_pruned), 0
)"""
"""The highest id that was ever handed out, by all that is left of it."""

# One statement: its snapshot is older than what it reads of the sequence, so a sequence in order is never behind.
# Unknown, where nothing was taken from it yet or this role may not see it, is 0.
LAST_ID: Final = Statement(f"SELECT coalesce(pg_sequence_last_value('wallet.outbox_id_seq'), 0), {HIGHEST_ID}")
SNAPSHOT: Final = Statement("""
    SELECT pg_snapshot_xmin(snapshot)::text::bigint, pg_snapshot_xmax(snapshot)::text::bigint
    FROM pg_current_snapshot() AS snapshot
""")


class OutboxRow(NamedTuple):
    """A pending row, in the order of READ_PENDING's columns. Its texts go from here to the producer as they are."""

    id: int
    lane: int
    event_id: str
    aggregate_id: str
    event_type: str
    payload: str
    headers: str | None
    created_at: datetime
    source_epoch: int
    waits: bool


async def lock_lanes(connection: asyncpg.Connection, lanes_max: int) -> dict[int, int]:
    """Lock lanes that have pending rows; return each one's low water."""
    return dict(await LOCK_LANES.fetch(connection, lanes_max=lanes_max))


async def read_pending(
    connection: asyncpg.Connection, low_waters: Mapping[int, int], lane_rows_max: int
) -> list[OutboxRow]:
    """Return the pending rows of locked lanes, ascending by id, at most `lane_rows_max` of each."""
    rows = await READ_PENDING.fetch(
        connection, lanes=list(low_waters), low_waters=list(low_waters.values()), lane_rows_max=lane_rows_max
    )
    # Half a microsecond a row; field by field, with UUIDs and bytes, it was four.
    return list(map(OutboxRow._make, rows))


async def is_anything_pending(connection: asyncpg.Connection) -> bool:
    """Return whether there are pending rows, whoever holds their lanes."""
    ((found,),) = await ANY_PENDING.fetch(connection)
    return bool(found)


async def settle(connection: asyncpg.Connection, published: Mapping[int, Published]) -> None:
    """Write where each row went."""
    await SETTLE.fetch(
        connection,
        ids=list(published),
        partitions=[outcome.partition for outcome in published.values()],
        offsets=[outcome.offset for outcome in published.values()],
    )


async def park(connection: asyncpg.Connection, parked: Mapping[int, Parked]) -> None:
    """Set rows aside, with the reason."""
    await PARK.fetch(
        connection,
        ids=list(parked),
        attempts=[outcome.attempts for outcome in parked.values()],
        errors=[outcome.error for outcome in parked.values()],
    )


async def raise_low_waters(connection: asyncpg.Connection, low_waters: Mapping[int, int]) -> None:
    """Write the low water of each lane."""
    await RAISE_LOW_WATER.fetch(connection, lanes=list(low_waters), low_waters=list(low_waters.values()))


async def look(connection: asyncpg.Connection) -> Moment:
    """Return the last and the highest outbox id handed out, and the bounds of a snapshot taken after reading it."""
    ((last_id, highest_id),) = await LAST_ID.fetch(connection)
    ((xmin, xmax),) = await SNAPSHOT.fetch(connection)
    return Moment(last_id, xmin, xmax, highest_id)


# What operators ask. A selection's empty filters match everything.
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
            WHERE datname = current_database() AND application_name = 'outbox-relay') AS relay_sessions
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

LOCK_LANES_OF: Final = text("""
    SELECT lane FROM wallet.outbox_lanes WHERE lane = ANY(cast(:lanes AS smallint[])) ORDER BY lane FOR UPDATE
""")

# In the epoch of now: whoever has been told that the database was restored takes nothing of an older one.
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
    """Return one row, whole."""
    return (await connection.execute(SHOW_ROW, {"id": row_id, "event_id": event_id})).mappings().one_or_none()


async def count_replayable(connection: AsyncConnection, selection: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return how many published rows are selected, and their lowest and highest id."""
    count, lowest, highest = (await connection.execute(COUNT_REPLAYABLE, selection)).one()
    return count, lowest or 0, highest or 0


async def make_pending(
    connection: AsyncConnection, selection: Mapping[str, Any], after_id: int, limit: int
) -> list[int]:
    """Make the next published rows of the selection pending again; return their ids, ascending.

    Holds the leases of their lanes meanwhile, so that no relay is in the middle of one, and lowers the low
    water behind which a relay would not look.
    """
    parameters = {**selection, "after_id": after_id, "limit": limit}
    rows = (await connection.execute(NEXT_REPLAYABLE, parameters)).all()
    if not rows:
        return []
    ids, lanes = [row.id for row in rows], sorted({row.lane for row in rows})
    await connection.execute(LOCK_LANES_OF, {"lanes": lanes})
    await connection.execute(UNPUBLISH, {"ids": ids})
    await connection.execute(LOWER_LOW_WATER, {"lanes": lanes, "low_water": ids[0] - 1})
    return ids


async def audit(
    connection: AsyncConnection, actor: str, action: str, selection: str, row_count: int, reason: str | None
) -> None:
    """Write down what an operator does."""
    parameters = {
        "actor": actor,
        "action": action,
        "selection": selection,
        "row_count": row_count,
        "reason": reason,
    }
    await connection.execute(AUDIT, parameters)
