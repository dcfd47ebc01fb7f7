"""Engines whose every wait has a bound, and whose connections are replaced when they are of no use any more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from common.postgres.connections import connect
from common.postgres.errors import READ_ONLY, sqlstate
from common.postgres.urls import asyncpg_url

_entries: WeakKeyDictionary[Engine, WeakSet[ConnectionPoolEntry]] = WeakKeyDictionary()


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
