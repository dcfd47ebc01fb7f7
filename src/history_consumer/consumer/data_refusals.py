"""Data that the database refuses: the record that has it becomes a dead letter, and the other records are written."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy.exc import DBAPIError

from common.postgres.errors import sqlstate
from history_consumer.consumer.records import Poison, Record
from history_consumer.projection import storable

REFUSED_BY_DATABASE: Final = "refused-by-database"

# Class 22 data exception, 23 integrity constraint violation, 54 program limit exceeded (PostgreSQL manual,
# appendix A). The data is wrong: a retry fails as well.
_DATA_PREFIXES: Final = ("22", "23", "54")


def is_data_refusal(error: BaseException) -> bool:
    """Return whether the database refuses the data itself."""
    return (sqlstate(error) or "").startswith(_DATA_PREFIXES)


async def isolate_refused(
    records: Sequence[Record], write: Callable[[Sequence[Record]], Awaitable[None]]
) -> DBAPIError | None:
    """Write the records together; if the database refuses their data, write each alone.

    A record that the database refuses alone is written as a dead letter.

    Args:
        records: what to write.
        write: writes some of the records in one transaction.

    Returns:
        The error with which the database refused the records together, or None.
    """
    refusal = await _refusal(records, write)
    if refusal is not None:
        for record in records:
            if (error := await _refusal([record], write)) is not None:
                poison = Poison(REFUSED_BY_DATABASE, storable(f"{sqlstate(error)}: {error.orig}"))
                await write([replace(record, content=poison)])
    return refusal


async def _refusal(
    records: Sequence[Record], write: Callable[[Sequence[Record]], Awaitable[None]]
) -> DBAPIError | None:
    try:
        await write(records)
    except DBAPIError as error:
        if not is_data_refusal(error):
            raise
        return error
    return None
