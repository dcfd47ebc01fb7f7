"""The SQL of reading wallets and their ledgers, and of the health check."""

from collections.abc import Sequence
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
ORDERS: Final = {
    "asc": {"compare": ">", "direction": "ASC"},
    "desc": {"compare": "<", "direction": "DESC"},
}
"""How the SQL of a list differs by its order."""
LIST_WALLETS: Final = {order: text(_LIST_WALLETS.format(**words)) for order, words in ORDERS.items()}
LIST_ENTRIES: Final = {order: text(_LIST_ENTRIES.format(**words)) for order, words in ORDERS.items()}


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
