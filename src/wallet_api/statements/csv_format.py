"""A statement as CSV (RFC 4180): a header, the opening balance, the entries, the closing balance. Pure."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from common.moments import timestamp
from common.money import to_major
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
    async for rows in pages:
        yield _lines(_entry_row(row) for row in rows)
    yield _lines([_balance_row("CLOSING", period.closing, period.end)])


def _balance_row(kind: str, balance: Balance, moment: datetime) -> _Row:
    money = _money(balance.balance_minor, balance.held_minor, balance.currency)
    return (kind, balance.version, timestamp(moment), "", "", "", "", "", *money, balance.currency)


def _entry_row(row: Mapping[Any, Any]) -> _Row:
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
        *_money(row["balance_after_minor"], row["held_after_minor"] or 0, row["currency"]),
        row["currency"],
    )


def _money(balance_minor: int, held_minor: int, currency: str) -> Sequence[str]:
    """Return what is booked, held and available."""
    return [to_major(minor, currency) for minor in (balance_minor, held_minor, balance_minor - held_minor)]


def _as_text(value: str | None) -> str | None:
    """Return the text with an apostrophe before it if a spreadsheet would take it for a formula."""
    return f"'{value}" if value and value.startswith(_FORMULA_STARTS) else value


def _lines(rows: Iterable[_Row]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
