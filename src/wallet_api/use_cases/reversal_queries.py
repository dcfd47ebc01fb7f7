"""The SQL of reversals: the transaction that is to be reversed, and what was reversed of it before."""

from collections import Counter
from collections.abc import Collection
from itertools import groupby
from typing import Final
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.access.caller import Caller
from common.postgres.raw_sql import RawStatement
from wallet_api.operations.operation import Reversals
from wallet_api.operations.original import Original, OriginalEntry

FIND_ORIGINALS: Final = text("""
    SELECT transaction_id, type, entry.currency, wallet_id, user_id, amount_minor
    FROM wallet.wallet_transactions AS entry LEFT JOIN wallet.wallets ON wallets.id = wallet_id
    WHERE transaction_id = ANY(:ids) ORDER BY transaction_id, entry
""")

READ_REVERSALS: Final = RawStatement("""
    SELECT reverses_transaction_id, wallet_id, -sum(amount_minor)::bigint FROM wallet.wallet_transactions
    WHERE reverses_transaction_id = ANY(cast(:ids AS uuid[])) AND amount_minor < 0
    GROUP BY reverses_transaction_id, wallet_id
""")


async def find_originals(
    connection: AsyncConnection, transaction_ids: Collection[UUID], caller: Caller
) -> dict[UUID, Original]:
    """Return those of the transactions that have a wallet of the caller. Their entries never change."""
    rows = (await connection.execute(FIND_ORIGINALS, {"ids": list(transaction_ids)})).all()
    found = {}
    for transaction_id, group in groupby(rows, key=lambda row: row.transaction_id):
        first, *others = group
        entries = tuple(OriginalEntry(row.wallet_id, row.user_id, row.amount_minor) for row in (first, *others))
        if any(entry.user_id is not None and caller.owns(entry.user_id) for entry in entries):
            found[transaction_id] = Original(transaction_id, first.type, first.currency, entries)
    return found


async def read_reversals(connection: asyncpg.Connection, transaction_ids: Collection[UUID]) -> Reversals:
    """Return what was given back of these transactions."""
    reversals: Reversals = {}
    for transaction_id, wallet_id, amount_minor in await READ_REVERSALS.fetch(connection, ids=list(transaction_ids)):
        reversals.setdefault(transaction_id, Counter())[wallet_id] = amount_minor
    return reversals
