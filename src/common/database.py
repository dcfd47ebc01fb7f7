"""Engines, and what PostgreSQL's errors mean here."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

import asyncpg
from asyncpg.exceptions import InvalidCachedStatementError
from sqlalchemy import Engine, ExceptionContext, event, text
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from common.connecting import UnsuitableDatabaseError, connect
from common.problems import Unavailable
from common.settings import asyncpg_url

PING: Final = text("SELECT 1")

SERIALIZATION_FAILURE: Final = "40001"
DEADLOCK_DETECTED: Final = "40P01"
LOCK_NOT_AVAILABLE: Final = "55P03"
UNIQUE_VIOLATION: Final = "23505"
QUERY_CANCELED: Final = "57014"
TOO_MANY_CONNECTIONS: Final = "53300"

READ_ONLY: Final = "25006"

_OLD_TABLES: Final = "tables are missing or old: run walletctl db migrate"
# PostgreSQL manual, appendix A. Class 08 connection exception, 53 insufficient resources, 57P operator intervention;
# 25P03 and 25P04 are sessions that the server ended for idling or running too long.
_AWAY: Final = ("08", "53", "57P", "25P03", "25P04")
_WAYS_OUT: Final[Mapping[str, str]] = {
    READ_ONLY: "the database is read-only: name the primary in the URL, or end default_transaction_read_only",
    "28": "the login is refused: correct the role or the password of the URL, or see LOGIN and pg_hba.conf",
    "3D000": "create that database, or name another one in the URL",
    "42501": "a privilege is missing: grant it to the role of the URL, or use the URL of a role that has it",
    "3F000": _OLD_TABLES,
    "42P01": _OLD_TABLES,
    "42703": _OLD_TABLES,
    "42883": _OLD_TABLES,
}
"""A database that refuses, whoever asks, until an operator heals it: by the beginning of the SQLSTATE, the way out."""
_REFUSING: Final = tuple(_WAYS_OUT)

# Less than the API's batches have left, or their deadline would end it first.
_ROLLBACK_SECONDS_MAX: Final = 1.0

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises; an InternalClientError for a connection whose end it has heard of, but not seen."""

_entries: WeakKeyDictionary[Engine, WeakSet[ConnectionPoolEntry]] = WeakKeyDictionary()

BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Begins a transaction on a `driver_connection`, whatever the server's default is."""


def create_engine(
    url: str,
    application: str,
    *,
    pool_size: int = 10,
    pool_timeout_seconds: float = 10.0,
    connect_timeout_seconds: float = 5.0,
    statement_timeout_seconds: float = 30.0,
    lock_timeout_seconds: float = 5.0,
    idle_in_transaction_timeout_seconds: float = 30.0,
    transaction_timeout_seconds: float = 0.0,
    durable: bool = True,
    writes: bool = True,
) -> AsyncEngine:
    """Return an engine (asyncpg, READ COMMITTED) whose every wait has a bound.

    Args:
        url: `postgresql://…`.
        application: shown in `pg_stat_activity.application_name`.
        pool_size: connections at most; none beyond.
        pool_timeout_seconds: how long to wait for a free connection.
        connect_timeout_seconds: how long to wait for a new connection.
        statement_timeout_seconds: the server cancels a statement after this; 0 means never.
        lock_timeout_seconds: the server gives up waiting for a lock after this.
        idle_in_transaction_timeout_seconds: the server ends a session that leaves a transaction open and
            idle this long, so that a hung process can't keep its locks.
        transaction_timeout_seconds: the server ends a session whose transaction takes longer; 0 means never. Idling is
            not all that a hung process can do: asyncpg prepares a statement without a Sync, and a session that waits
            for the Bind behind it isn't idle (PostgreSQL 17 and newer; manual, section 19.11).
        durable: whether a commit waits for the disk; without, the last ones may be lost in a crash.
        writes: whether, of several hosts, only one that can write will do (unless the URL says `target_session_attrs`).
    """

    def milliseconds(seconds: float) -> str:
        return str(round(seconds * 1000))

    parsed = asyncpg_url(url)
    wanted = {} if writes or "target_session_attrs" in parsed.query else {"target_session_attrs": "any"}
    engine = create_async_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout_seconds,
        pool_use_lifo=True,
        isolation_level="READ COMMITTED",
        connect_args={
            **wanted,
            "async_creator_fn": connect,
            "timeout": connect_timeout_seconds,
            "server_settings": {
                "application_name": application,
                "jit": "off",
                "standard_conforming_strings": "on",
                "timezone": "UTC",
                # On, whatever the server's default is: a 2xx is a promise.
                "synchronous_commit": "on" if durable else "off",
                "statement_timeout": milliseconds(statement_timeout_seconds),
                "lock_timeout": milliseconds(lock_timeout_seconds),
                "idle_in_transaction_session_timeout": milliseconds(idle_in_transaction_timeout_seconds),
                "transaction_timeout": milliseconds(transaction_timeout_seconds),
                # A client that is gone without a word, or behind a dead network, gives up its locks soon too.
                "tcp_keepalives_idle": "5",
                "tcp_keepalives_interval": "2",
                "tcp_keepalives_count": "3",
                "tcp_user_timeout": "11000",
                "client_connection_check_interval": "2000",
            },
        },
    )
    entries = _entries[engine.sync_engine] = WeakSet()
    event.listen(engine.sync_engine, "connect", lambda _, entry: entries.add(entry))
    event.listen(engine.sync_engine, "connect", _replace_when_ended)
    event.listen(engine.sync_engine, "handle_error", _replace_when_read_only)
    return engine


@asynccontextmanager
async def operator_engine(url: str) -> AsyncIterator[AsyncEngine]:
    """Lend an engine of an operator's command, without a statement timeout, and close it at the block's end."""
    engine = create_engine(url, "walletctl", pool_size=4, statement_timeout_seconds=0)
    try:
        yield engine
    finally:
        await engine.dispose()


def pool_entries(engine: AsyncEngine) -> list[ConnectionPoolEntry]:
    """Return the entries of the engine's pool that have had a connection."""
    return list(_entries.get(engine.sync_engine, ()))


def replace_connections(engine: AsyncEngine) -> None:
    """Let each connection be replaced when it is next taken from the pool."""
    for entry in pool_entries(engine):
        if entry.dbapi_connection is not None:
            entry.invalidate(soft=True)


def _replace_when_read_only(context: ExceptionContext) -> None:
    # Read-only is what a session was when it began. Another one may be more, and that goes for all in the pool.
    if sqlstate(context.original_exception) == READ_ONLY:
        context.is_disconnect = True


def _replace_when_ended(connection: Any, entry: ConnectionPoolEntry) -> None:
    # All sessions may be ended at once. Whoever takes this one from the pool afterwards gets a new one.
    def replace(_: object) -> None:
        if entry.dbapi_connection is connection:
            entry.invalidate(soft=True)

    connection.driver_connection.add_termination_listener(replace)


class Statement:
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
async def driver_connection(engine: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
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


def sqlstate(error: BaseException) -> str | None:
    """Return the five-character SQLSTATE behind a SQLAlchemy or asyncpg error, or None."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None)
    return state if isinstance(state, str) else None


def is_unreachable(error: BaseException) -> bool:
    """Whether the server is away or full, or refuses whoever asks: waiting may help, another command won't."""
    if isinstance(error, OSError | TimeoutError | PoolTimeoutError):
        return True
    state = sqlstate(error)
    if state is not None:
        return state.startswith(_AWAY + _REFUSING)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    away = InterfaceError | OperationalError | asyncpg.InterfaceError | asyncpg.InternalClientError
    return isinstance(error, away)


def is_refusal(error: BaseException) -> bool:
    """Whether the database answers and refuses, whoever asks: an operator has to act."""
    return isinstance(error, UnsuitableDatabaseError) or (sqlstate(error) or "").startswith(_REFUSING)


def unavailable(error: BaseException) -> Unavailable:
    """Return what a client is told of an error that `is_unreachable`, where nothing was done."""
    why = "The database refuses: /ready says why." if is_refusal(error) else "The database did not answer in time."
    return Unavailable(f"{why} Nothing was done. Ask again.")


def may_succeed_again(error: BaseException) -> bool:
    """Whether the whole transaction may succeed when it is run again: deadlock, serialization failure, stale plan.

    A stale plan after a migration (InvalidCachedStatementError) counts: the driver has dropped its cache by then.
    """
    if sqlstate(error) in {SERIALIZATION_FAILURE, DEADLOCK_DETECTED}:
        return True
    cause = getattr(error.orig, "__cause__", None) if isinstance(error, DBAPIError) else error
    return isinstance(cause, InvalidCachedStatementError)


def is_temporary(error: BaseException) -> bool:
    """Whether a worker's step may succeed later: the database is away, or gave up this transaction and not the work.

    An operator's cancel, a lock that a migration holds and a deadlock are no reason for a worker to end.
    """
    return is_unreachable(error) or may_succeed_again(error) or sqlstate(error) in {QUERY_CANCELED, LOCK_NOT_AVAILABLE}


def way_out(error: BaseException) -> str | None:
    """Return what an operator does about a database that refuses, or None where it is another error."""
    state = sqlstate(error) or ""
    return next((way_out for prefix, way_out in _WAYS_OUT.items() if state.startswith(prefix)), None)


def said(error: BaseException) -> str:
    """Return what an error says, on one line."""
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    # SQLAlchemy puts the class of the driver's error before what it says.
    return text.split(">: ", 1)[-1] if text.startswith("<class ") else text


def explained(error: BaseException) -> str:
    """Return what an error says on one line, and the way out where there is one."""
    found = way_out(error)
    return f"{said(error)} ({found})" if found else said(error)
