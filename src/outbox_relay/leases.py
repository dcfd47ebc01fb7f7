"""The leases on lanes: row locks on `outbox_lanes`, which end with their transaction.

A relay claims lanes that are free. An operator's command names its lanes, and waits for the relay that holds them.
"""

from collections.abc import Iterable
from typing import Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from common.postgres.errors import LOCK_NOT_AVAILABLE, sqlstate
from common.postgres.raw_sql import RawStatement

# Of the lanes that no relay holds, those with the oldest pending rows. It must be a statement of its own: the rows
# must be read in a snapshot that is newer than the locks. In an older one, rows that another relay has settled
# meanwhile still look pending, and would be published again.
CLAIM_LANES: Final = RawStatement("""
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

# In the order of lanes, so that two commands never wait for each other.
LOCK_LANES: Final = text("""
    SELECT lane FROM wallet.outbox_lanes WHERE lane = ANY(cast(:lanes AS smallint[])) ORDER BY lane FOR UPDATE
""")

retry_while_leased = retry(
    # A relay holds a lease for one batch at most.
    retry=retry_if_exception(lambda error: isinstance(error, DBAPIError) and sqlstate(error) == LOCK_NOT_AVAILABLE),
    stop=stop_after_attempt(20),
    wait=wait_random(0, 0.2),
    reraise=True,
)
"""Decorates a transaction that locks lanes: it is run again when `lock_timeout` ended its wait for a relay."""


async def claim_lanes(connection: asyncpg.Connection, lanes_max: int) -> dict[int, int]:
    """Lock free lanes that have pending rows; return each one's low water."""
    return dict(await CLAIM_LANES.fetch(connection, lanes_max=lanes_max))


async def lock_lanes(connection: AsyncConnection, lanes: Iterable[int]) -> None:
    """Lock these lanes, waiting for relays that hold them. No relay publishes from them until the transaction ends."""
    await connection.execute(LOCK_LANES, {"lanes": list(lanes)})
