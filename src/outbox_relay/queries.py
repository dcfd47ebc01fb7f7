"""The SQL of a batch: read, settle, park, raise low waters."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from common.postgres.raw_sql import RawStatement
from outbox_relay.low_water import IdSnapshot
from outbox_relay.outcomes import Parked, Published

READ_PENDING: Final = RawStatement("""
    SELECT pending.*
    FROM unnest(cast(:lanes AS smallint[]), cast(:low_waters AS bigint[])) AS claimed (lane, low_water)
    CROSS JOIN LATERAL (
        SELECT id, lane, event_id::text, aggregate_id::text, event_type, payload::text, headers::text, created_at,
            source_epoch,
            -- The first EXISTS is evaluated once: mostly no row is parked, and the second is skipped.
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

ANY_PENDING: Final = RawStatement("""
    SELECT EXISTS (
        SELECT FROM wallet.outbox_lanes AS lanes
        JOIN wallet.outbox ON outbox.lane = lanes.lane AND outbox.id > lanes.low_water
            AND published_at IS NULL AND parked_at IS NULL
    )
""")

SETTLE: Final = RawStatement("""
    UPDATE wallet.outbox
    SET published_at = statement_timestamp(), kafka_partition = settled.partition,
        kafka_offset = settled.position, attempts = attempts + 1, last_error = NULL
    FROM unnest(cast(:ids AS bigint[]), cast(:partitions AS integer[]), cast(:offsets AS bigint[]))
        AS settled (id, partition, position)
    WHERE outbox.id = settled.id
""")

PARK: Final = RawStatement("""
    UPDATE wallet.outbox
    SET parked_at = statement_timestamp(), attempts = outbox.attempts + parked.attempts, last_error = parked.error
    FROM unnest(cast(:ids AS bigint[]), cast(:attempts AS integer[]), cast(:errors AS text[]))
        AS parked (id, attempts, error)
    WHERE outbox.id = parked.id
""")

RAISE_LOW_WATER: Final = RawStatement("""
    UPDATE wallet.outbox_lanes
    SET low_water = raised.low_water
    FROM unnest(cast(:lanes AS smallint[]), cast(:low_waters AS bigint[])) AS raised (lane, low_water)
    WHERE outbox_lanes.lane = raised.lane AND outbox_lanes.low_water < raised.low_water
""")

HIGHEST_ID: Final = """greatest(
    (SELECT max(id) FROM wallet.outbox), (SELECT max(low_water) FROM wallet.outbox_lanes),
    (SELECT up_to_id FROM wallet.outbox_pruned), 0
)"""
"""The highest id that was handed out, as far as the tables have a trace of it."""

# One statement, whose snapshot is older than the sequence's value that it reads: a sequence in order is never behind.
# 0 is unknown: no id was taken yet, or this role may not read the sequence.
LAST_ID: Final = RawStatement(f"SELECT coalesce(pg_sequence_last_value('wallet.outbox_id_seq'), 0), {HIGHEST_ID}")
SNAPSHOT: Final = RawStatement("""
    SELECT pg_snapshot_xmin(snapshot)::text::bigint, pg_snapshot_xmax(snapshot)::text::bigint
    FROM pg_current_snapshot() AS snapshot
""")


class PendingRow(NamedTuple):
    """A pending row, in the order of READ_PENDING's columns. Its texts are produced as they are."""

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


async def read_pending(
    connection: asyncpg.Connection, low_waters: Mapping[int, int], lane_rows_max: int
) -> list[PendingRow]:
    """Return the pending rows of locked lanes, ascending by id, at most `lane_rows_max` of each."""
    rows = await READ_PENDING.fetch(
        connection, lanes=list(low_waters), low_waters=list(low_waters.values()), lane_rows_max=lane_rows_max
    )
    # 0.5 microseconds a row; with UUIDs and bytes, field by field, it was 4.
    return list(map(PendingRow._make, rows))


async def is_anything_pending(connection: asyncpg.Connection) -> bool:
    """Return whether there are pending rows, in free lanes or leased ones."""
    ((found,),) = await ANY_PENDING.fetch(connection)
    return bool(found)


async def settle(connection: asyncpg.Connection, published: Mapping[int, Published]) -> None:
    """Write the partition and offset of each published row."""
    await SETTLE.fetch(
        connection,
        ids=list(published),
        partitions=[outcome.partition for outcome in published.values()],
        offsets=[outcome.offset for outcome in published.values()],
    )


async def park(connection: asyncpg.Connection, parked: Mapping[int, Parked]) -> None:
    """Park rows, each with its reason."""
    await PARK.fetch(
        connection,
        ids=list(parked),
        attempts=[outcome.attempts for outcome in parked.values()],
        errors=[outcome.error for outcome in parked.values()],
    )


async def raise_low_waters(connection: asyncpg.Connection, low_waters: Mapping[int, int]) -> None:
    """Raise the low water of each lane."""
    await RAISE_LOW_WATER.fetch(connection, lanes=list(low_waters), low_waters=list(low_waters.values()))


async def read_id_snapshot(connection: asyncpg.Connection) -> IdSnapshot:
    """Return the last and the highest outbox id, and the bounds of a snapshot that is taken after reading them."""
    ((last_id, highest_id),) = await LAST_ID.fetch(connection)
    ((xmin, xmax),) = await SNAPSHOT.fetch(connection)
    return IdSnapshot(last_id, xmin, xmax, highest_id)
