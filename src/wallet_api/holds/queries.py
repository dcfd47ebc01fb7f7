"""The SQL of reading holds, and of finding overdue ones."""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from wallet_api.read_queries import ORDERS, READABLE, get_wallet

# With what the ledger says of the hold: its entry of the hold's creation has reference, external id and metadata.
_HOLD: Final = f"""
    SELECT holds.id, holds.wallet_id, to_wallet_id, holds.currency, amount_minor, capture_max_minor, captured_minor,
        holds.status, expires_at, made.*, holds.created_at, holds.updated_at, statement_timestamp() AS read_at
    FROM wallet.holds
    JOIN wallet.wallets ON wallets.id = holds.wallet_id AND {READABLE}
    CROSS JOIN LATERAL (
        SELECT (array_agg(reference ORDER BY wallet_version))[1] AS reference,
            (array_agg(external_id ORDER BY wallet_version))[1] AS external_id,
            (array_agg(entry.metadata ORDER BY wallet_version))[1] AS metadata,
            array_agg(transaction_id ORDER BY wallet_version) AS transaction_ids
        FROM wallet.wallet_transactions AS entry
        WHERE entry.hold_id = holds.id AND entry.wallet_id = holds.wallet_id
    ) AS made
"""  # noqa: S608
GET_HOLD: Final = text(f"{_HOLD} WHERE holds.id = :id")
FIND_HOLDS: Final = text(f"""
    SELECT holds.id, holds.wallet_id, to_wallet_id FROM wallet.holds
    JOIN wallet.wallets ON wallets.id = holds.wallet_id AND {READABLE}
    WHERE holds.id = ANY(cast(:ids AS uuid[]))
""")  # noqa: S608
_LIST_HOLDS: Final = f"""
    {_HOLD}
    WHERE holds.wallet_id = :wallet_id AND holds.id {{compare}} :after
        AND (cast(:status AS text) IS NULL OR :status =
            CASE WHEN holds.status = 'open' AND expires_at <= statement_timestamp() THEN 'expired'
                ELSE holds.status END)
    ORDER BY holds.id {{direction}} LIMIT :limit
"""
LIST_HOLDS: Final = {order: text(_LIST_HOLDS.format(**words)) for order, words in ORDERS.items()}
# Those that make up `wallets.held_minor`: also the overdue ones that nothing has released yet.
LIST_RESERVING: Final = text(f"""
    {_HOLD} WHERE holds.wallet_id = :wallet_id AND holds.status = 'open' ORDER BY holds.id DESC LIMIT :limit
""")
# The overdue holds of all wallets, the oldest first.
OVERDUE_HOLDS: Final = text("""
    SELECT id, wallet_id FROM wallet.holds
    WHERE status = 'open' AND expires_at <= statement_timestamp() ORDER BY expires_at LIMIT :limit
""")


async def get_hold(connection: AsyncConnection, hold_id: UUID, caller_user_id: str | None) -> RowMapping | None:
    """Return the hold's row, if the caller is not bound to another user than its wallet's."""
    parameters = {"id": hold_id, "caller_user_id": caller_user_id}
    return (await connection.execute(GET_HOLD, parameters)).mappings().one_or_none()


async def find_holds(
    connection: AsyncConnection, hold_ids: Collection[UUID], caller_user_id: str | None
) -> dict[UUID, tuple[UUID, UUID | None]]:
    """Return each hold's wallet and its receiver, which never change, where `get_hold` would return the hold."""
    parameters = {"ids": list(hold_ids), "caller_user_id": caller_user_id}
    return {row[0]: (row[1], row[2]) for row in await connection.execute(FIND_HOLDS, parameters)}


async def list_holds(
    connection: AsyncConnection,
    wallet_id: UUID,
    caller_user_id: str | None,
    status: str | None,
    order: str,
    after: UUID,
    limit: int,
) -> Sequence[RowMapping]:
    """Return the page of the wallet's holds that follows `after`; none if the caller may not read the wallet."""
    parameters = {
        "wallet_id": wallet_id,
        "caller_user_id": caller_user_id,
        "status": status,
        "after": after,
        "limit": limit,
    }
    return (await connection.execute(LIST_HOLDS[order], parameters)).mappings().all()


async def get_wallet_with_holds(
    connection: AsyncConnection, wallet_id: UUID, caller_user_id: str | None, limit: int
) -> tuple[RowMapping | None, Sequence[RowMapping]]:
    """Return the wallet's row, as `get_wallet` does, and the newest holds that reserve its money, in one snapshot."""
    await connection.execution_options(isolation_level="REPEATABLE READ")
    wallet = await get_wallet(connection, wallet_id, caller_user_id)
    parameters = {"wallet_id": wallet_id, "caller_user_id": caller_user_id, "limit": limit}
    return wallet, (await connection.execute(LIST_RESERVING, parameters)).mappings().all()


async def overdue_holds(connection: AsyncConnection, limit: int) -> list[tuple[UUID, UUID]]:
    """Return at most so many overdue holds, the oldest first: the id of each, and its wallet's."""
    return [(row.id, row.wallet_id) for row in await connection.execute(OVERDUE_HOLDS, {"limit": limit})]
