"""The SQL of the audit of what operators do with wallets."""

from typing import Final
from uuid import UUID

import asyncpg

from common.postgres.raw_sql import RawStatement

INSERT_AUDIT: Final = RawStatement("""
    INSERT INTO wallet.wallet_audit (actor, action, wallet_id, transaction_id, reason)
    VALUES (:actor, :action, :wallet_id, :transaction_id, :reason)
""")


async def insert_audit(
    connection: asyncpg.Connection, *, actor: str, action: str, wallet_id: UUID, transaction_id: UUID, reason: str
) -> None:
    """Record who did what with a wallet, by which ledger transaction, and why."""
    await INSERT_AUDIT.fetch(
        connection, actor=actor, action=action, wallet_id=wallet_id, transaction_id=transaction_id, reason=reason
    )
