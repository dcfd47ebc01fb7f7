"""A statement as CSV (RFC 4180): a header, the opening balance, the entries, the closing balance. Pure."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, Final

from common.moments import timestamp
from common.money import to_major, to_minor_or_zero
from wallet_api.statements.balances import Balance, Pages, Period

COLUMNS: Final = (
    *("type", "version", "created_at", "transaction_id", "counterparty_wallet_id", "reference", "external_id"),
    *("amount", "balance", "held", "available", "currency"),
)

# A spreadsheet takes such a text for a formula, and the sender of the money has chosen it (OWASP, "CSV Injection").
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")

_Row = Sequence[object]


async def statement_csv(period: Period, pages: Pages) -> AsyncIterator[bytes]:
    """Yield the CSV of a statement, in parts."""
    yield _lines([COLUMNS, _balance_row("OPENING", period.opening, period.start)])
    limits_minor = [period.opening.overdraft_limit_minor]
    async for rows in pages:
        limits_minor = list(accumulate(rows, _overdraft_limit_minor, initial=limits_minor[-1]))
        yield _lines(map(_entry_row, rows, limits_minor[1:]))
    yield _lines([_balance_row("CLOSING", period.closing, period.end)])


def _balance_row(kind: str, balance: Balance, moment: datetime) -> _Row:
    money = _money(balance.balance_minor, balance.held_minor, balance.overdraft_limit_minor, balance.currency)
    return (kind, balance.version, timestamp(moment), "", "", "", "", "", *money, balance.currency)


def _overdraft_limit_minor(before_minor: int, row: Mapping[Any, Any]) -> int:
    """Return the wallet's overdraft limit after the entry."""
    limit: str | None = row["overdraft_limit"]
    return before_minor if limit is None else to_minor_or_zero(limit, row["currency"])


def _entry_row(row: Mapping[Any, Any], limit_minor: int) -> _Row:
    return (
        row["type"],
        row["wallet_version"],
        timestamp(row["created_at"]),
        row["transaction_id"],
        row["counterparty_wallet_id"],
        _as_text(row["reference"]),
        _as_text(row["external_id"]),
        to_major(row["amount_minor"], row["currency"]),
        # An entry of a release that had no holds says nothing of them.
        *_money(row["balance_after_minor"], row["held_after_minor"] or 0, limit_minor, row["currency"]),
        row["currency"],
    )


def _money(balance_minor: int, held_minor: int, limit_minor: int, currency: str) -> Sequence[str]:
    """Return what is booked, held and available."""
    available_minor = balance_minor - held_minor + limit_minor
    return [to_major(minor, currency) for minor in (balance_minor, held_minor, available_minor)]


def _as_text(value: str | None) -> str | None:
    """Return the text with an apostrophe before it if a spreadsheet would take it for a formula."""
    return f"'{value}" if value and value.startswith(_FORMULA_STARTS) else value


def _lines(rows: Iterable[_Row]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
