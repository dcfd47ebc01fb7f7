"""Reading rows: few at once, many from a server-side cursor, and all of a database as of one moment."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from sqlalchemy import Row, RowMapping, TextClause
from sqlalchemy.ext.asyncio import AsyncConnection

from common.postgres.engine import create_engine
from common.secrets import Secret

_CHUNK_ROWS: Final = 2000


@asynccontextmanager
async def read_only_snapshot(
    url: Secret | str, application: str, *, before: TextClause | None = None
) -> AsyncIterator[AsyncConnection]:
    """Open a read-only transaction for the block, in which all statements see the database as of one moment.

    The moment is that of the first statement that reads (PostgreSQL manual, section 13.2.2). The transaction may last
    for hours: neither a statement nor an idle transaction has a timeout.

    Args:
        url: the database, `postgresql://…`.
        application: the name that `pg_stat_activity.application_name` shows.
        before: a statement that runs before that moment.
    """
    engine = create_engine(
        url, application, pool_size=1, statement_timeout_seconds=0, idle_in_transaction_timeout_seconds=0
    )
    try:
        async with engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            async with connection.begin():
                if before is not None:
                    await connection.execute(before)
                yield connection
    finally:
        await engine.dispose()


async def fetch_value(connection: AsyncConnection, query: TextClause, **parameters: Any) -> Any:
    """Return the query's only value."""
    return await connection.scalar(query, parameters)


async def fetch_one(connection: AsyncConnection, query: TextClause, **parameters: Any) -> RowMapping:
    """Return the query's only row."""
    return (await connection.execute(query, parameters)).mappings().one()


async def fetch_all(connection: AsyncConnection, query: TextClause, **parameters: Any) -> Sequence[Row[Any]]:
    """Return all rows of a query that has few."""
    return (await connection.execute(query, parameters)).all()


async def stream_rows(
    connection: AsyncConnection, query: TextClause, **parameters: Any
) -> AsyncGenerator[Row[Any], None]:
    """Yield the query's rows one by one, as `stream_chunks` fetches them."""
    chunks = stream_chunks(connection, query, **parameters)
    async with aclosing(chunks):
        async for rows in chunks:
            for row in rows:
                yield row


async def stream_chunks(
    connection: AsyncConnection, query: TextClause, **parameters: Any
) -> AsyncGenerator[Sequence[Row[Any]], None]:
    """Yield the query's rows in chunks from a server-side cursor: memory does not grow with their number."""
    result = await connection.stream(query, parameters, execution_options={"yield_per": _CHUNK_ROWS})
    try:
        async for rows in result.partitions(_CHUNK_ROWS):
            yield rows
    finally:
        await result.close()
