"""The SQL of parking: park, retry, skip. The caller holds the leases of the lanes (`leases.lock_lanes`)."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox_relay.operations.queries import LOWER_LOW_WATER

FIND_ROW: Final = text("SELECT aggregate_id, lane FROM wallet.outbox WHERE id = :id")

PARKED_WALLETS: Final = text("""
    SELECT aggregate_id, lane, count(*) AS row_count FROM wallet.outbox
    WHERE parked_at IS NOT NULL AND skipped_at IS NULL
        AND (cast(:wallet_id AS uuid) IS NULL OR aggregate_id = :wallet_id)
    GROUP BY aggregate_id, lane ORDER BY min(id)
""")

PARK_ROW: Final = text("""
    UPDATE wallet.outbox SET parked_at = statement_timestamp(), last_error = :reason
    WHERE id = :id AND published_at IS NULL AND parked_at IS NULL
""")

# In the order of ids: the rows that are still parked come after those that were unparked.
UNPARK: Final = text("""
    UPDATE wallet.outbox SET parked_at = NULL
    WHERE id IN (
        SELECT id FROM wallet.outbox
        WHERE aggregate_id = :wallet_id AND id > :after_id AND parked_at IS NOT NULL AND skipped_at IS NULL
        ORDER BY id LIMIT :limit
    )
    RETURNING id
""")

SKIP_ROW: Final = text("""
    UPDATE wallet.outbox SET skipped_at = statement_timestamp()
    WHERE id = :id AND parked_at IS NOT NULL AND skipped_at IS NULL
""")


async def find_row(connection: AsyncConnection, row_id: int) -> Row[Any] | None:
    """Return a row's wallet (`aggregate_id`) and lane."""
    return (await connection.execute(FIND_ROW, {"id": row_id})).one_or_none()


async def parked_wallets(connection: AsyncConnection, wallet_id: UUID | None) -> list[Row[Any]]:
    """Return wallets with parked rows (`aggregate_id`, `lane`, `row_count`); all if `wallet_id` is None."""
    return list((await connection.execute(PARKED_WALLETS, {"wallet_id": wallet_id})).all())


async def park_row(connection: AsyncConnection, row_id: int, reason: str) -> bool:
    """Park a pending row; return whether it was pending."""
    return (await connection.execute(PARK_ROW, {"id": row_id, "reason": reason})).rowcount == 1


async def unpark(connection: AsyncConnection, wallet_id: UUID, lane: int, after_id: int, limit: int) -> list[int]:
    """Make the wallet's next parked rows pending again, above the low water; return their ids, ascending."""
    parameters = {"wallet_id": wallet_id, "after_id": after_id, "limit": limit}
    ids = sorted((await connection.execute(UNPARK, parameters)).scalars())
    if ids:
        await connection.execute(LOWER_LOW_WATER, {"lanes": [lane], "low_water": ids[0] - 1})
    return ids


async def skip_row(connection: AsyncConnection, row_id: int) -> bool:
    """Skip a parked row; return whether it was parked."""
    return (await connection.execute(SKIP_ROW, {"id": row_id})).rowcount == 1
