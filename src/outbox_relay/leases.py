"""The leases on lanes: a row lock on `outbox_lanes`, which ends with its transaction."""

from typing import Final

import asyncpg
from sqlalchemy import text

from common.postgres.raw_sql import RawStatement

# The lanes with the oldest pending rows that no other relay holds. A statement of its own: what it waits for
# is locks, what the next one reads must be a snapshot taken after them. (Read in the same snapshot, a lane
# that another relay settled in between would be published again.)
LOCK_LANES: Final = RawStatement("""
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


async def lock_lanes(connection: asyncpg.Connection, lanes_max: int) -> dict[int, int]:
    """Lock lanes that have pending rows; return each one's low water."""
    return dict(await LOCK_LANES.fetch(connection, lanes_max=lanes_max))


LOCK_LANES_OF: Final = text("""
    SELECT lane FROM wallet.outbox_lanes WHERE lane = ANY(cast(:lanes AS smallint[])) ORDER BY lane FOR UPDATE
""")
