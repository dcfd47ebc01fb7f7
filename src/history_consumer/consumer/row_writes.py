"""Writing the rows that records ask for: first as if all were new, then with a look at what the history has."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from history_consumer.consumer import queries
from history_consumer.consumer.data_refusals import is_data_refusal
from history_consumer.consumer.deduplication import ClassifiedBatch, ExistingEvents, classify, classify_as_new
from history_consumer.consumer.records import Record
from history_consumer.projection import HistoryRow

# Fewer rows are written sooner by one statement: COPY and counting them to their wallets take three round trips.
_COPIED_ROWS_MIN: Final = 100


class ExistingRowsError(Exception):
    """The history has some of the rows that were taken for new: roll back, and write again with a look at it."""


async def write_rows(
    connection: AsyncConnection, records: Sequence[Record], *, optimistic: bool, into: queries.Into = ""
) -> ClassifiedBatch:
    """Write the records' rows in the caller's transaction; the dead letters among them are only returned.

    Args:
        connection: in a transaction.
        records: for each partition in the order of offsets.
        optimistic: take each event of the history's epoch for new, without reading what the history has.
        into: which tables.

    Raises:
        ExistingRowsError: the history has some of the rows; the transaction must be rolled back.
    """
    optimistic = optimistic and not any(record.is_of_other_epoch for record in records)
    classified = (
        classify_as_new(records) if optimistic else classify(records, await _existing(connection, records, into))
    )
    if optimistic and len(classified.rows) >= _COPIED_ROWS_MIN:
        await _copy(connection, classified.rows, into)
    elif classified.rows and await queries.insert_rows(connection, classified.rows, into) < len(classified.rows):
        raise ExistingRowsError
    return classified


async def _copy(connection: AsyncConnection, rows: Sequence[HistoryRow], into: queries.Into) -> None:
    try:
        await queries.copy_rows(connection, rows, into)
    except DBAPIError as error:
        if is_data_refusal(error):
            # Existing rows, or data that the database never takes: the next attempt's statement tells which.
            raise ExistingRowsError from error
        raise
    await queries.add_progress(connection, rows, into)


async def _existing(connection: AsyncConnection, records: Sequence[Record], into: queries.Into) -> ExistingEvents:
    rows = [row for record in records for row in record.rows]
    return await queries.read_existing(connection, rows, into)
