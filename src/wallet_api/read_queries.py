"""The SQL of the routes that only read, and of the health check."""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.postgres.database_health import usability_query

USABLE: Final = usability_query(
    {
        "wallet.wallets": "SELECT INSERT UPDATE",
        "wallet.wallet_transactions": "SELECT INSERT",
        "wallet.holds": "SELECT INSERT",
        "wallet.velocity_limits": "SELECT INSERT UPDATE",
        "wallet.outbox": "INSERT",
        "wallet.source_epochs": "SELECT",
        "wallet.idempotency_keys": "SELECT INSERT",
    },
    writes=True,
)
"""The health check of the API's database: can it be written, and has the role its privileges?"""

# Columns by name: with `*`, a migration that adds a column would break the prepared statements.
_WALLET: Final = (
    "id, user_id, currency, balance_minor, held_minor, overdraft_limit_minor, version, status, blocks, external_id,"
    " metadata, created_at, updated_at"
)

# A caller that is bound to a user reads a wallet of another user as one that doesn't exist, in the same statement.
READABLE: Final = "(cast(:caller_user_id AS text) IS NULL OR wallets.user_id = cast(:caller_user_id AS text))"
"""The condition on a row of `wallet.wallets` that the caller may read it."""

GET_WALLET: Final = text(f"SELECT {_WALLET} FROM wallet.wallets WHERE id = :id AND {READABLE}")  # noqa: S608

_LIST_WALLETS: Final = f"""
    SELECT {_WALLET} FROM wallet.wallets
    WHERE user_id = :user_id AND id {{compare}} :after ORDER BY id {{direction}} LIMIT :limit
"""  # noqa: S608
_LIST_ENTRIES: Final = f"""
    SELECT transaction_id, type, wallet_id, counterparty_wallet_id, amount_minor, currency, balance_after_minor,
        held_minor, held_after_minor, hold_id, reverses_transaction_id, wallet_version, reference, external_id,
        metadata, created_at
    FROM wallet.wallet_transactions
    WHERE wallet_id = :wallet_id AND wallet_version {{compare}} :after
        AND EXISTS (SELECT FROM wallet.wallets WHERE id = :wallet_id AND {READABLE})
    ORDER BY wallet_version {{direction}} LIMIT :limit
"""  # noqa: S608
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
# One row for each velocity limit, or one without: what a statement reads is of one version of the wallet.
GET_LIMITS: Final = text(f"""
    SELECT limits.id, direction, types, "window", limits.amount_minor, count, since_version, since, window_start,
        used_minor, used_count, currency, version, overdraft_limit_minor, balance_max_minor,
        statement_timestamp() AS read_at
    FROM wallet.wallets LEFT JOIN wallet.velocity_limits AS limits ON limits.wallet_id = wallets.id
    WHERE wallets.id = :id AND {READABLE} ORDER BY position
""")  # noqa: S608
# Those that make up `wallets.held_minor`: also the overdue ones that nothing has released yet.
LIST_RESERVING: Final = text(f"""
    {_HOLD} WHERE holds.wallet_id = :wallet_id AND holds.status = 'open' ORDER BY holds.id DESC LIMIT :limit
""")
# The overdue holds of all wallets, the oldest first.
OVERDUE_HOLDS: Final = text("""
    SELECT id, wallet_id FROM wallet.holds
    WHERE status = 'open' AND expires_at <= statement_timestamp() ORDER BY expires_at LIMIT :limit
""")
_ORDERS: Final = {
    "asc": {"compare": ">", "direction": "ASC"},
    "desc": {"compare": "<", "direction": "DESC"},
}
LIST_WALLETS: Final = {order: text(_LIST_WALLETS.format(**words)) for order, words in _ORDERS.items()}
LIST_HOLDS: Final = {order: text(_LIST_HOLDS.format(**words)) for order, words in _ORDERS.items()}
LIST_ENTRIES: Final = {order: text(_LIST_ENTRIES.format(**words)) for order, words in _ORDERS.items()}


async def get_wallet(connection: AsyncConnection, wallet_id: UUID, caller_user_id: str | None) -> RowMapping | None:
    """Return the wallet's row, if the caller is not bound to another user."""
    parameters = {"id": wallet_id, "caller_user_id": caller_user_id}
    return (await connection.execute(GET_WALLET, parameters)).mappings().one_or_none()


async def list_wallets(
    connection: AsyncConnection, user_id: str, order: str, after: UUID, limit: int
) -> Sequence[RowMapping]:
    """Return the page of the user's wallets that follows `after`."""
    parameters = {"user_id": user_id, "after": after, "limit": limit}
    return (await connection.execute(LIST_WALLETS[order], parameters)).mappings().all()


async def list_entries(
    connection: AsyncConnection, wallet_id: UUID, caller_user_id: str | None, order: str, after: int, limit: int
) -> Sequence[RowMapping]:
    """Return the page of the wallet's ledger that follows version `after`; none if the caller may not read it."""
    parameters = {"wallet_id": wallet_id, "caller_user_id": caller_user_id, "after": after, "limit": limit}
    return (await connection.execute(LIST_ENTRIES[order], parameters)).mappings().all()


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


async def get_limits(connection: AsyncConnection, wallet_id: UUID, caller_user_id: str | None) -> Sequence[RowMapping]:
    """Return the wallet's limits: rows of `GET_LIMITS`, none if the caller may not read the wallet."""
    parameters = {"id": wallet_id, "caller_user_id": caller_user_id}
    return (await connection.execute(GET_LIMITS, parameters)).mappings().all()


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
