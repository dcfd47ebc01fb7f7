"""Parking: operators park, retry and skip rows. Each action writes an audit row."""

from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.actor import actor
from outbox_relay.leases import lock_lanes, retry_while_leased
from outbox_relay.operations import parking_queries, queries

_CHUNK_ROWS_MAX: Final = 1000


class RowStateError(Exception):
    """The row doesn't exist, or is not in the state that the action needs."""


@retry_while_leased
async def park(engine: AsyncEngine, row_id: int, reason: str) -> None:
    """Park a pending row. The relays then park the wallet's later rows, and no other wallet's.

    Raises:
        RowStateError: the row isn't pending.
    """
    async with engine.begin() as connection:
        await _lock_lane_of(connection, row_id)
        if not await parking_queries.park_row(connection, row_id, f"parked by an operator: {reason}"):
            raise RowStateError(f"outbox row {row_id} is not pending")
        await _audit(connection, "park", {"id": row_id}, 1, reason)


@retry_while_leased
async def skip(engine: AsyncEngine, row_id: int, reason: str) -> None:
    """Skip a parked row: it is never published, and the wallet's later rows no longer wait for it.

    The later rows stay parked until they are retried. The history of each wallet that the event touched keeps a gap
    for ever, and reports it.

    Raises:
        RowStateError: the row isn't parked.
    """
    async with engine.begin() as connection:
        await _lock_lane_of(connection, row_id)
        if not await parking_queries.skip_row(connection, row_id):
            raise RowStateError(f"outbox row {row_id} is not parked")
        await _audit(connection, "skip", {"id": row_id}, 1, reason)


async def wallet_of(engine: AsyncEngine, row_id: int) -> UUID:
    """Return the wallet of a row.

    Raises:
        RowStateError: the row doesn't exist.
    """
    async with engine.connect() as connection:
        return (await _find(connection, row_id))[0]


async def count_parked(engine: AsyncEngine, wallet_id: UUID | None) -> tuple[int, int]:
    """Return how many rows are parked, and of how many wallets; of all wallets if `wallet_id` is None."""
    async with engine.connect() as connection:
        wallets = await parking_queries.parked_wallets(connection, wallet_id)
    return sum(wallet.row_count for wallet in wallets), len(wallets)


async def retry(engine: AsyncEngine, wallet_id: UUID | None, reason: str | None = None) -> AsyncIterator[list[int]]:
    """Make all parked rows of a wallet pending again, in their order and in chunks; of all wallets if None is given.

    Rows that the relays park meanwhile are retried too. A row that the broker still refuses is parked again, with the
    wallet's later rows.

    Yields:
        The ids of each chunk, which is committed.
    """
    async with engine.begin() as connection:
        wallets = await parking_queries.parked_wallets(connection, wallet_id)
        selection = {"all": True} if wallet_id is None else {"wallet_id": str(wallet_id)}
        await _audit(connection, "retry", selection, sum(wallet.row_count for wallet in wallets), reason)
    for wallet in wallets:
        after_id = 0
        while True:
            ids = await _unpark(engine, wallet.aggregate_id, wallet.lane, after_id)
            if ids:
                after_id = ids[-1]
                yield ids
            if len(ids) < _CHUNK_ROWS_MAX:
                # The lease was held: no relay can have parked another row of this wallet meanwhile.
                break


@retry_while_leased
async def _unpark(engine: AsyncEngine, wallet_id: UUID, lane: int, after_id: int) -> list[int]:
    async with engine.begin() as connection:
        await lock_lanes(connection, [lane])
        return await parking_queries.unpark(connection, wallet_id, lane, after_id, _CHUNK_ROWS_MAX)


async def _find(connection: AsyncConnection, row_id: int) -> tuple[UUID, int]:
    row = await parking_queries.find_row(connection, row_id)
    if row is None:
        raise RowStateError(f"outbox row {row_id} doesn't exist")
    return row.aggregate_id, row.lane


async def _lock_lane_of(connection: AsyncConnection, row_id: int) -> None:
    _, lane = await _find(connection, row_id)
    await lock_lanes(connection, [lane])


async def _audit(
    connection: AsyncConnection, action: str, selection: dict[str, Any], row_count: int, reason: str | None
) -> None:
    await queries.audit(connection, actor(), action, orjson.dumps(selection).decode(), row_count, reason)
