"""The SQL of reading a wallet's limits."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from wallet_api.read_queries import READABLE

# One row for each velocity limit, or one without: what a statement reads is of one version of the wallet.
GET_LIMITS: Final = text(f"""
    SELECT limits.id, direction, types, "window", limits.amount_minor, count, since_version, since, window_start,
        used_minor, used_count, currency, version, overdraft_limit_minor, balance_max_minor,
        statement_timestamp() AS read_at
    FROM wallet.wallets LEFT JOIN wallet.velocity_limits AS limits ON limits.wallet_id = wallets.id
    WHERE wallets.id = :id AND {READABLE} ORDER BY position
""")  # noqa: S608


async def get_limits(connection: AsyncConnection, wallet_id: UUID, caller_user_id: str | None) -> Sequence[RowMapping]:
    """Return the wallet's limits: rows of `GET_LIMITS`, none if the caller may not read the wallet."""
    parameters = {"id": wallet_id, "caller_user_id": caller_user_id}
    return (await connection.execute(GET_LIMITS, parameters)).mappings().all()
