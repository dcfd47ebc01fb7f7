"""The SQL of holds in a batch: those that its commands need, and those that it changes."""

from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from common.postgres.raw_sql import RawStatement
from wallet_api.hold import Hold

_HOLD: Final = (
    "id, wallet_id, to_wallet_id, currency, amount_minor, capture_max_minor, captured_minor, status, expires_at,"
    " created_at"
)
# So that one command releases a bounded number of holds. The releaser releases the others.
_OVERDUE_MAX: Final = 1000

# The holds that commands name, and the overdue ones of wallets. The oldest of these are enough: each releases money.
READ_HOLDS: Final = RawStatement(f"""
    SELECT {_HOLD} FROM wallet.holds WHERE id = ANY(cast(:ids AS uuid[]))
    UNION ALL
    (
        SELECT {_HOLD} FROM wallet.holds
        WHERE wallet_id = ANY(cast(:wallet_ids AS uuid[])) AND status = 'open' AND expires_at <= statement_timestamp()
        ORDER BY expires_at LIMIT {_OVERDUE_MAX}
    )
""")  # noqa: S608

WRITE_HOLDS: Final = RawStatement(f"""
    INSERT INTO wallet.holds ({_HOLD}, updated_at)
    SELECT {_HOLD}, :changed_at
    FROM unnest(
        cast(:ids AS uuid[]), cast(:wallet_ids AS uuid[]), cast(:to_wallet_ids AS uuid[]), cast(:currencies AS text[]),
        cast(:amounts AS bigint[]), cast(:capture_maxima AS bigint[]), cast(:captured AS bigint[]),
        cast(:statuses AS text[]), cast(:expiries AS timestamptz[]), cast(:created AS timestamptz[])
    ) AS row ({_HOLD})
    ORDER BY id
    ON CONFLICT (id) DO UPDATE
    SET captured_minor = excluded.captured_minor, status = excluded.status, updated_at = excluded.updated_at
""")  # noqa: S608


async def read_holds(
    connection: asyncpg.Connection, ids: Collection[UUID], wallet_ids: Collection[UUID]
) -> dict[UUID, Hold]:
    """Return the holds with these ids, and the overdue ones of these wallets."""
    rows = await READ_HOLDS.fetch(connection, ids=list(ids), wallet_ids=list(wallet_ids))
    return {row[0]: Hold(*row) for row in rows}


async def write_holds(connection: asyncpg.Connection, holds: Collection[Hold], changed_at: datetime) -> None:
    """Write new holds, and those that have changed."""
    await WRITE_HOLDS.fetch(
        connection,
        ids=[hold.id for hold in holds],
        wallet_ids=[hold.wallet_id for hold in holds],
        to_wallet_ids=[hold.to_wallet_id for hold in holds],
        currencies=[hold.currency for hold in holds],
        amounts=[hold.amount_minor for hold in holds],
        capture_maxima=[hold.capture_max_minor for hold in holds],
        captured=[hold.captured_minor for hold in holds],
        statuses=[hold.status for hold in holds],
        expiries=[hold.expires_at for hold in holds],
        created=[hold.created_at for hold in holds],
        changed_at=changed_at,
    )
