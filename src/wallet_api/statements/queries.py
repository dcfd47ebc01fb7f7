"""The SQL of balances at a time and of statements.

A wallet's versions have no gap, and their times rise with them. So the version at a time is found by halving, with some
twenty index look-ups for a million versions, and without an index on the time.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.money import to_minor_or_zero
from wallet_api.read_queries import READABLE
from wallet_api.statements.balances import Balance

PAGE_ENTRIES: Final = 200
"""Entries that a statement reads at once: few, so that other requests of the process do not wait for their encoding."""

# Version 1 is the creation. It has no entry, and its balance is zero.
_WALLET: Final = f"""
    SELECT id, currency, version AS newest_version, created_at FROM wallet.wallets WHERE id = :id AND {READABLE}
"""  # noqa: S608

# The overdraft limit in major units, as the entry that set it has it; NULL: none was set up to the version.
_OVERDRAFT_LIMIT: Final = """(
        SELECT details ->> 'overdraft_limit' FROM wallet.wallet_transactions
        WHERE wallet_id = :id AND wallet_version <= {version} AND type = 'LIMITS' ORDER BY wallet_version DESC LIMIT 1
    ) AS overdraft_limit"""

# LIMIT keeps the look-up of one entry an index look-up, whatever the planner takes for the wallet's number of entries.
BALANCES_BEFORE: Final = text(f"""
    WITH RECURSIVE wallet AS MATERIALIZED ({_WALLET}), search (number, before, low, high) AS (
        SELECT number, before, CASE WHEN created_at < before THEN 1::bigint ELSE 0 END,
            CASE WHEN created_at < before THEN newest_version ELSE 0 END
        FROM wallet CROSS JOIN unnest(cast(:moments AS timestamptz[])) WITH ORDINALITY AS asked (before, number)
        UNION ALL
        SELECT number, before, CASE WHEN is_before THEN middle ELSE low END,
            CASE WHEN is_before THEN high ELSE middle - 1 END
        FROM (SELECT *, (low + high + 1) / 2 AS middle FROM search WHERE low < high) AS halved
        CROSS JOIN LATERAL (
            SELECT created_at < before AS is_before FROM wallet.wallet_transactions
            WHERE wallet_id = :id AND wallet_version = middle LIMIT 1
        ) AS probe
    )
    SELECT wallet.currency, newest_version, low AS version, coalesce(balance_after_minor, 0) AS balance_minor,
        coalesce(held_after_minor, 0) AS held_minor, {_OVERDRAFT_LIMIT.format(version="low")},
        coalesce(entry.created_at, wallet.created_at) AS created_at
    FROM wallet JOIN search ON low = high
    LEFT JOIN wallet.wallet_transactions AS entry ON entry.wallet_id = :id AND entry.wallet_version = low
    ORDER BY number
""")  # noqa: S608

BALANCE_AT_VERSION: Final = text(f"""
    WITH wallet AS MATERIALIZED ({_WALLET})
    SELECT wallet.currency, newest_version, cast(:version AS bigint) AS version,
        coalesce(balance_after_minor, 0) AS balance_minor, coalesce(held_after_minor, 0) AS held_minor,
        {_OVERDRAFT_LIMIT.format(version=":version")},
        coalesce(entry.created_at, wallet.created_at) AS created_at
    FROM wallet
    LEFT JOIN wallet.wallet_transactions AS entry ON entry.wallet_id = :id AND entry.wallet_version = :version
""")  # noqa: S608

ENTRIES: Final = text("""
    SELECT transaction_id, type, wallet_id, counterparty_wallet_id, amount_minor, currency, balance_after_minor,
        held_minor, held_after_minor, hold_id, reverses_transaction_id, wallet_version, reference, external_id,
        metadata, created_at, CASE type WHEN 'LIMITS' THEN details ->> 'overdraft_limit' END AS overdraft_limit
    FROM wallet.wallet_transactions
    WHERE wallet_id = :wallet_id AND wallet_version > :after AND wallet_version <= :up_to
    ORDER BY wallet_version LIMIT :limit
""")

NOW: Final = text("SELECT clock_timestamp()")

# A transaction takes the time of its entries in a statement that reads `wallet.wallets`. The statement locks that table
# until the transaction has ended for all others too. Every role sees these locks, but not whose they
# are. A lock of a mode that only reads is of a transaction that may have taken its time, and not written yet.
MAY_WRITE_BEFORE: Final = text("""
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND relation = 'wallet.wallets'::regclass AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (
            mode IN ('RowShareLock', 'RowExclusiveLock')
            OR mode = 'AccessShareLock' AND cast(:at AS timestamptz) > clock_timestamp() - cast(:reading AS interval)
        )
""")


async def now(connection: AsyncConnection) -> datetime:
    """Return the time of the database's clock, by which versions have their times."""
    found: datetime = (await connection.execute(NOW)).scalar_one()
    return found


async def balances_before(
    connection: AsyncConnection, wallet_id: UUID, caller_user_id: str | None, moments: Sequence[datetime]
) -> list[Balance]:
    """Return the wallet's balance just before each moment; none if the caller may not read the wallet."""
    parameters = {"id": wallet_id, "caller_user_id": caller_user_id, "moments": moments}
    return [_balance(row) for row in await connection.execute(BALANCES_BEFORE, parameters)]


async def balance_at_version(
    connection: AsyncConnection, wallet_id: UUID, caller_user_id: str | None, version: int
) -> Balance | None:
    """Return the wallet's balance at the version, if the caller may read it. The version must be checked."""
    parameters = {"id": wallet_id, "caller_user_id": caller_user_id, "version": version}
    row = (await connection.execute(BALANCE_AT_VERSION, parameters)).one_or_none()
    return None if row is None else _balance(row)


def _balance(row: Row[Any]) -> Balance:
    return Balance(
        currency=row.currency,
        newest_version=row.newest_version,
        version=row.version,
        balance_minor=row.balance_minor,
        held_minor=row.held_minor,
        overdraft_limit_minor=to_minor_or_zero(row.overdraft_limit or "0", row.currency),
        created_at=row.created_at,
    )


async def pages_of_entries(
    reader: AsyncEngine, wallet_id: UUID, after: int, up_to: int
) -> AsyncIterator[Sequence[RowMapping]]:
    """Yield the wallet's entries of the versions (after, up_to], in order, page by page.

    Each page is a transaction of its own: entries never change, and no version is added in between. While the client
    reads a page, the statement has no connection to the database.
    """
    while after < up_to:
        parameters = {"wallet_id": wallet_id, "after": after, "up_to": up_to, "limit": PAGE_ENTRIES}
        async with reader.connect() as connection:
            rows = (await connection.execute(ENTRIES, parameters)).mappings().all()
        if not rows:
            return
        yield rows
        after = rows[-1]["wallet_version"]


async def may_write_before(connection: AsyncConnection, at: datetime, reading_seconds: float) -> set[str]:
    """Return the transactions in flight that may still write a time up to `at`.

    Args:
        connection: of any role.
        at: not in the future.
        reading_seconds: a transaction that has written nothing after this time never will.
    """
    parameters = {"at": at, "reading": timedelta(seconds=reading_seconds)}
    return set((await connection.execute(MAY_WRITE_BEFORE, parameters)).scalars())
