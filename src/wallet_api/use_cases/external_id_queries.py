"""The SQL of the external ids of transactions."""

from collections.abc import Collection
from typing import Final
from uuid import UUID

import asyncpg

from common.postgres.raw_sql import RawStatement
from wallet_api.operations.operation import ExternalId

# LIMIT keeps the look-up of each id an index look-up, whatever the planner takes for the number of its transactions.
FIND_TAKEN: Final = RawStatement("""
    SELECT asked.wallet_id, asked.external_id, taken.transaction_id
    FROM unnest(cast(:wallet_ids AS uuid[]), cast(:external_ids AS text[])) AS asked (wallet_id, external_id)
    CROSS JOIN LATERAL (
        SELECT transaction_id FROM wallet.wallet_transactions
        WHERE external_id = asked.external_id AND wallet_id = asked.wallet_id LIMIT 1
    ) AS taken
""")


async def find_taken(connection: asyncpg.Connection, asked: Collection[ExternalId]) -> dict[ExternalId, UUID]:
    """Return those of the external ids that a transaction of their wallet has, each with that transaction."""
    rows = await FIND_TAKEN.fetch(
        connection,
        wallet_ids=[external_id.wallet_id for external_id in asked],
        external_ids=[external_id.text for external_id in asked],
    )
    return {ExternalId(wallet_id, text): transaction_id for wallet_id, text, transaction_id in rows}
