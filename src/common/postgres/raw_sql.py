"""SQL that asyncpg runs itself, on the engine's connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import replace_connections
from common.postgres.errors import READ_ONLY, is_unreachable, sqlstate

PING: Final = text("SELECT 1")

# Less than the API's batches have left, or their deadline would end it first.
_ROLLBACK_SECONDS_MAX: Final = 1.0

BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Begins a transaction on a `raw_connection`, whatever the server's default is."""


class RawStatement:
    """SQL with `:names` for parameters, run by asyncpg itself.

    For what runs often and little at a time: SQLAlchemy's own execution takes 0.1 to 0.2 ms of processor time,
    asyncpg's a tenth of that (docs/decisions/0014-movements-in-one-statement-by-asyncpg.md).
    """

    def __init__(self, sql: str) -> None:
        compiled = text(sql).compile(dialect=asyncpg_dialect.dialect())  # type: ignore[no-untyped-call]
        self.sql = compiled.string
        self._names = compiled.positiontup or ()

    async def fetch(self, connection: asyncpg.Connection, **parameters: Any) -> list[asyncpg.Record]:
        """Run it and return its rows.

        Raises:
            DRIVER_ERRORS, OSError: as `sqlstate` and `is_unreachable` read them.
        """
        rows: list[asyncpg.Record] = await connection.fetch(self.sql, *[parameters[name] for name in self._names])
        return rows


@asynccontextmanager
async def raw_connection(engine: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
    """Lend one of the engine's connections as asyncpg knows it. SQLAlchemy begins and ends no transaction on it.

    A transaction that is open at the block's end is rolled back; a connection that isn't in order then is thrown away.
    """
    async with engine.connect() as pooled:
        assert pooled.sync_connection is not None
        connection = pooled.sync_connection.connection.driver_connection
        assert connection is not None
        # Cancelled in the middle of a statement, it may still be running.
        is_in_order = False
        try:
            yield connection
            is_in_order = True
        except Exception as error:
            is_in_order = not is_unreachable(error)
            if sqlstate(error) == READ_ONLY:
                replace_connections(engine)
            raise
        finally:
            is_clean = False
            try:
                is_clean = is_in_order and await _is_rolled_back(connection)
            finally:
                # Cancelled in the ROLLBACK too.
                if not is_clean:
                    await pooled.invalidate()


async def _is_rolled_back(connection: asyncpg.Connection) -> bool:
    if connection.is_closed():
        return False
    try:
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK", timeout=_ROLLBACK_SECONDS_MAX)
    except BaseException as error:
        # Whatever it was, nobody else should find it, and no time is left for SQLAlchemy to say goodbye (2 s).
        connection.terminate()
        if isinstance(error, Exception):
            return False
        raise
    return True
