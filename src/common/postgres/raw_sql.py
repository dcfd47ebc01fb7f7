"""SQL that asyncpg runs itself, on connections of an engine's pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import replace_connections
from common.postgres.errors import READ_ONLY, is_unreachable, sqlstate

T = TypeVar("T")

PING: Final = text("SELECT 1")

# Shorter than the time that a batch of the API has left, or the batch's deadline would interrupt the ROLLBACK.
_ROLLBACK_SECONDS_MAX: Final = 1.0

BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Begins a transaction on a `raw_connection`. It names the isolation level, since the server's default may differ."""

SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
"""The first statement of a transaction whose statements all see one snapshot (PostgreSQL manual, section 13.2.2)."""


class RawStatement:
    """SQL with `:names` for parameters, run by asyncpg itself.

    It is for short statements that run often. SQLAlchemy takes 0.1 to 0.2 ms of processor time for each, asyncpg a
    tenth of that (docs/decisions/0014-movements-in-one-statement-by-asyncpg.md).
    """

    def __init__(self, sql: str) -> None:
        compiled = text(sql).compile(dialect=asyncpg_dialect.dialect())  # type: ignore[no-untyped-call]
        self.sql = compiled.string
        self._names = compiled.positiontup or ()

    async def fetch(self, connection: asyncpg.Connection, **parameters: Any) -> list[asyncpg.Record]:
        """Run it and return its rows.

        Raises:
            DRIVER_ERRORS, OSError: `sqlstate` and `is_unreachable` tell them apart.
        """
        rows: list[asyncpg.Record] = await connection.fetch(self.sql, *[parameters[name] for name in self._names])
        return rows


def unless_empty(values: list[T]) -> list[T]:
    """Return the values, or no value where all are zero or None: `unnest` fills the column up with NULL.

    Most batches have no holds, and many no metadata. The encoding of an array costs more than all else of a column.
    """
    return values if any(values) else []


@asynccontextmanager
async def raw_connection(engine: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
    """Lend the asyncpg connection of one of the engine's pooled connections. SQLAlchemy begins no transaction on it.

    At the end of the block an open transaction is rolled back, and a connection that isn't usable any more is closed.
    """
    async with engine.connect() as pooled:
        assert pooled.sync_connection is not None
        connection = pooled.sync_connection.connection.driver_connection
        assert connection is not None
        # After a cancellation the statement may still be running.
        is_usable = False
        try:
            yield connection
            is_usable = True
        except Exception as error:
            is_usable = not is_unreachable(error)
            if sqlstate(error) == READ_ONLY:
                replace_connections(engine)
            raise
        finally:
            is_clean = False
            try:
                is_clean = is_usable and await _is_rolled_back(connection)
            finally:
                # A cancellation may interrupt the ROLLBACK too.
                if not is_clean:
                    await pooled.invalidate()


async def _is_rolled_back(connection: asyncpg.Connection) -> bool:
    if connection.is_closed():
        return False
    try:
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK", timeout=_ROLLBACK_SECONDS_MAX)
    except BaseException as error:
        # The pool must not lend this connection again, and closing it the regular way may take SQLAlchemy 2 s.
        connection.terminate()
        if isinstance(error, Exception):
            return False
        raise
    return True
