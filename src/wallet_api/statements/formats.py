"""The formats of a statement, and the reading of one in any of them."""

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from wallet_api.replies import JSON
from wallet_api.statements import queries
from wallet_api.statements.balances import Pages, Period
from wallet_api.statements.camt053 import statement_camt053
from wallet_api.statements.csv_format import statement_csv
from wallet_api.statements.periods import read_period
from wallet_api.statements.replies import statement_json

CSV: Final = "text/csv"
XML: Final = "application/xml"

Write = Callable[[Period, Pages], AsyncIterator[bytes]]


class Format(NamedTuple):
    """A format: its Content-Type, and what writes a statement in it."""

    content_type: str
    write: Write


FORMATS: Final[Mapping[str, Format]] = {
    JSON: Format(JSON, statement_json),
    # Its parameters are those of RFC 4180, section 3.
    CSV: Format("text/csv; charset=utf-8; header=present", statement_csv),
    XML: Format(XML, statement_camt053),
}
"""By their media types, the preferred one first."""


async def read_statement(
    reader: AsyncEngine, wallet_id: UUID, caller_user_id: str | None, start: datetime, end: datetime, write: Write
) -> AsyncIterator[bytes]:
    """Return the parts of the wallet's statement of [start, end). The entries are read while the parts are taken.

    Raises:
        ValidationProblem: the period is empty, ends in the future, or has too many entries.
        WalletNotFound: there is no such wallet that the caller may read.
    """
    period = await read_period(reader, wallet_id, caller_user_id, start, end)
    pages = queries.pages_of_entries(reader, wallet_id, period.opening.version, period.closing.version)
    return write(period, pages)
