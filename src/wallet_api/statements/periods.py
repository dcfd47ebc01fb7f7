"""What is read of a wallet's past: a balance, and a statement's opening and closing. Whether they are final."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from common.problems import ValidationProblem
from wallet_api.errors import WalletNotFound
from wallet_api.statements import queries
from wallet_api.statements.balances import Balance, BalanceAt, Period
from wallet_api.statements.finality import is_final

ENTRIES_MAX: Final = 100_000
"""The most entries of one statement."""

_MICROSECOND: Final = timedelta(microseconds=1)


async def read_balance_at(
    reader: AsyncEngine, wallet_id: UUID, caller_user_id: str | None, at: datetime | None
) -> BalanceAt:
    """Return the wallet's balance with all versions up to the time `at`, which is now without it.

    Raises:
        ValidationProblem: the time is in the future.
        WalletNotFound: there is no such wallet that the caller may read.
    """
    now = await _now(reader)
    as_of = at or now
    _check_past("at", as_of, now)
    # Times are whole microseconds.
    (balance,), is_final_ = await _read(reader, wallet_id, caller_user_id, [as_of + _MICROSECOND], as_of)
    return BalanceAt(balance, as_of, is_final_)


async def read_balance_of(reader: AsyncEngine, wallet_id: UUID, caller_user_id: str | None, version: int) -> BalanceAt:
    """Return the wallet's balance at the version, as of its time.

    Raises:
        ValidationProblem: the wallet hasn't got so far.
        WalletNotFound: there is no such wallet that the caller may read.
    """
    async with reader.connect() as connection:
        balance = await queries.balance_at_version(connection, wallet_id, caller_user_id, version)
    if balance is None:
        raise WalletNotFound(wallet_id)
    if version > balance.newest_version:
        raise ValidationProblem.of("version", f"must be at most {balance.newest_version}, the wallet's version")
    return BalanceAt(balance, balance.created_at, is_final=True)


async def read_period(
    reader: AsyncEngine, wallet_id: UUID, caller_user_id: str | None, start: datetime, end: datetime
) -> Period:
    """Return the wallet's statement of [start, end), without its entries.

    Raises:
        ValidationProblem: the period is empty, ends in the future, or has too many entries.
        WalletNotFound: there is no such wallet that the caller may read.
    """
    if start >= end:
        raise ValidationProblem.of("to", "must be after from")
    now = await _now(reader)
    _check_past("to", end, now)
    (opening, closing), is_final_ = await _read(reader, wallet_id, caller_user_id, [start, end], end)
    count = closing.version - opening.version
    if count > ENTRIES_MAX:
        raise ValidationProblem.of("to", f"the period has {count} entries, more than {ENTRIES_MAX}; send a shorter one")
    return Period(wallet_id, start, end, opening, closing, is_final_, now)


async def _read(
    reader: AsyncEngine, wallet_id: UUID, caller_user_id: str | None, moments: list[datetime], until: datetime
) -> tuple[list[Balance], bool]:
    """Return the balances before the moments, and whether the last one is final: nothing up to `until` can follow."""
    balances = await _balances_before(reader, wallet_id, caller_user_id, moments)
    if balances[-1].is_superseded:
        return balances, True
    is_settled = await is_final(reader, until)
    # What was in flight may have been committed since the first read.
    balances = await _balances_before(reader, wallet_id, caller_user_id, moments)
    return balances, is_settled or balances[-1].is_superseded


async def _balances_before(
    reader: AsyncEngine, wallet_id: UUID, caller_user_id: str | None, moments: list[datetime]
) -> list[Balance]:
    async with reader.connect() as connection:
        balances = await queries.balances_before(connection, wallet_id, caller_user_id, moments)
    if not balances:
        raise WalletNotFound(wallet_id)
    return balances


async def _now(reader: AsyncEngine) -> datetime:
    async with reader.connect() as connection:
        return await queries.now(connection)


def _check_past(field: str, moment: datetime, now: datetime) -> None:
    if moment > now:
        raise ValidationProblem.of(field, "must not be in the future of the database's clock")
