"""Statements for tests: made up, and of wallets with many entries."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any
from uuid import UUID

import asyncpg
from hypothesis import strategies as st

from common.identifiers import new_id
from common.money import to_major, to_minor_or_zero
from wallet_api.statements.balances import Balance, Pages, Period

START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 2, 1, tzinfo=UTC)
WALLET = UUID("0198c2a5-0000-7000-8000-000000000001")
OTHER = UUID("0198c2a5-0000-7000-8000-000000000002")
MINOR_MAX = 10**12

Write = Callable[[Period, Pages], AsyncIterator[bytes]]
Rows = Sequence[Mapping[str, Any]]

REFERENCES = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=255)


def period_of(
    opening_minor: int, rows: Rows, currency: str = "EUR", after_version: int = 4, limit_minor: int = 0
) -> Period:
    """Make the statement whose entries are these rows, of a wallet that has this overdraft limit before them."""
    closing_minor = rows[-1]["balance_after_minor"] if rows else opening_minor
    limits = [to_minor_or_zero(row["overdraft_limit"], currency) for row in rows if row["overdraft_limit"]]
    last_limit_minor = [limit_minor, *limits][-1]
    last = after_version + len(rows)
    opened_at, closed_at = START - timedelta(days=1), END - timedelta(days=1)
    return Period(
        WALLET,
        START,
        END,
        Balance(currency, last, after_version, opening_minor, opening_minor // 2, limit_minor, opened_at),
        Balance(currency, last, last, closing_minor, closing_minor // 3, last_limit_minor, closed_at),
        is_final=True,
        read_at=END,
    )


def rows_of(
    opening_minor: int, balances_minor: Sequence[int], references: Sequence[str | None], currency: str = "EUR"
) -> Rows:
    """Make entries with these balances after them."""
    before = [opening_minor, *balances_minor]
    return [
        {
            "transaction_id": new_id(),
            "type": "TRANSFER",
            "wallet_id": WALLET,
            "counterparty_wallet_id": OTHER if reference is None or len(reference) % 2 else None,
            "amount_minor": after - before[number],
            "currency": currency,
            "balance_after_minor": after,
            # An entry of a release that had no holds says nothing of them.
            "held_after_minor": after // 2 if number % 2 else None,
            "wallet_version": 5 + number,
            "reference": reference,
            "external_id": reference,
            "metadata": {},
            "overdraft_limit": None,
            "created_at": START + timedelta(seconds=number),
        }
        for number, (after, reference) in enumerate(zip(balances_minor, references, strict=True))
    ]


@st.composite
def statements(draw: st.DrawFn) -> tuple[Period, Rows]:
    """Draw a statement of at most ten entries; none of them moves nothing."""
    opening_minor = draw(st.integers(0, MINOR_MAX))
    amounts = draw(st.lists(st.integers(1, MINOR_MAX), max_size=10))
    # Up and down in turn, so that no balance is below zero.
    signed = [amount if number % 2 == 0 else -amounts[number - 1] for number, amount in enumerate(amounts)]
    balances = list(accumulate(signed, initial=opening_minor))[1:]
    references = draw(st.lists(REFERENCES, min_size=len(balances), max_size=len(balances)))
    currency = draw(st.sampled_from(["EUR", "JPY", "BHD"]))
    limits = draw(st.lists(st.none() | st.integers(0, MINOR_MAX), min_size=len(balances), max_size=len(balances)))
    rows = [
        row if limit is None else {**row, "type": "LIMITS", "overdraft_limit": to_major(limit, currency)}
        for row, limit in zip(rows_of(opening_minor, balances, references, currency), limits, strict=True)
    ]
    return period_of(opening_minor, rows, currency, limit_minor=draw(st.integers(0, MINOR_MAX))), rows


async def written(write: Write, period: Period, rows: Rows, page_rows: int = 3) -> bytes:
    """Write the statement whole."""

    async def pages() -> AsyncIterator[Rows]:
        for start in range(0, len(rows), page_rows):
            yield rows[start : start + page_rows]

    return b"".join([part async for part in write(period, pages())])


_AGE = """
    UPDATE wallet.wallets
    SET created_at = '2019-12-31T23:59:59Z', balance_minor = $2::bigint, version = 1 + $2::bigint WHERE id = $1
"""
_FILL = """
    INSERT INTO wallet.wallet_transactions (transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id,
        type, amount_minor, currency, balance_after_minor, metadata, created_at)
    SELECT id, 1, $1::uuid, number + 1, NULL::uuid, 'FUND', 1, 'EUR', number, '{}'::jsonb, moment FROM movement
    UNION ALL
    SELECT id, 2, NULL, NULL, $1::uuid, 'FUND', -1, 'EUR', NULL, NULL::jsonb, moment FROM movement
"""
_MOVEMENTS = """
    WITH movement AS MATERIALIZED (
        SELECT gen_random_uuid() AS id, number,
            timestamptz '2020-01-01T00:00:00Z' + (number - 1) * interval '1 second' AS moment
        FROM generate_series(1, $2::bigint) AS number
    )
"""


async def fill_ledger(database_url: str, wallet_id: UUID, count: int) -> None:
    """Make the new wallet one of the end of 2019, with a cent for each second since, so many of them."""
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute(_AGE, wallet_id, count)
        await connection.execute(_MOVEMENTS + _FILL, wallet_id, count)
    await connection.close()
