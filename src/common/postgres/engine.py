"""SQLAlchemy engines: each wait has a bound, and connections that are no longer usable are replaced."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from common.postgres.connections import connect, connect_read_only
from common.postgres.errors import READ_ONLY, sqlstate
from common.postgres.urls import Host, parse_url
from common.secrets import Secret


@dataclass(frozen=True)
class _Source:
    """Where an engine's connections come from, and those that it has."""

    url: Secret
    database: tuple[tuple[Host, ...], str | None]
    entries: WeakSet[ConnectionPoolEntry] = field(default_factory=WeakSet)


_sources: WeakKeyDictionary[Engine, _Source] = WeakKeyDictionary()

_READ_ONLY_OPTION: Final = "postgresql_readonly"
_SESSION_SETTINGS: Final[Mapping[str, str]] = {
    "jit": "off",
    # Empty: every statement names the schemas of its objects, so that no other object can take the place of one.
    "search_path": "",
    "standard_conforming_strings": "on",
    "timezone": "UTC",
    # The server ends the session of a client that is gone or unreachable, and so frees its locks.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "11000",
    "client_connection_check_interval": "2000",
}


def create_engine(
    url: Secret | str,
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
    on_standby: bool = False,
) -> AsyncEngine:
    """Return an engine (asyncpg, READ COMMITTED).

    Args:
        url: the database, `postgresql://…`. A secret is read again for each connection.
        application: the process, which `pg_stat_activity.application_name` shows.
        pool_size: the most connections.
        pool_timeout_seconds: the longest wait for a free connection.
        connect_timeout_seconds: the longest wait for a new connection.
        statement_timeout_seconds: the server cancels a statement after this time; 0 means never.
        lock_timeout_seconds: the server cancels a statement that has waited for a lock this long; 0 means never.
        idle_in_transaction_timeout_seconds: the server ends a session that has idled in a transaction this long, so
            that a hung process frees its locks; 0 means never.
        transaction_timeout_seconds: the server ends a session whose transaction takes longer; 0 means never. The
            session of a hung process need not be idle. asyncpg prepares a statement without a Sync, and a session that
            waits for the Bind isn't idle (PostgreSQL manual, section 19.11).
        durable: whether a commit waits for the disk. If not, a crash may lose the last commits.
        writes: whether the engine writes. If not, its sessions are read-only and each statement is a transaction.
        on_standby: whether of several hosts any one will do, unless the URL has `target_session_attrs`.

    Raises:
        ValueError: the URL is wrong. That of a setting has been checked.
    """
    settings = _session_settings(
        durable=durable,
        statement_timeout=statement_timeout_seconds,
        lock_timeout=lock_timeout_seconds,
        idle_in_transaction_session_timeout=idle_in_transaction_timeout_seconds,
        transaction_timeout=transaction_timeout_seconds,
    )
    secret = url if isinstance(url, Secret) else Secret(url)
    creator = partial(
        connect if writes else connect_read_only,
        *(secret, application, settings),
        timeout_seconds=connect_timeout_seconds,
        on_standby=on_standby,
    )
    engine = create_async_engine(
        # SQLAlchemy takes neither libpq's parameters nor a password that changes. The creator reads the URL itself.
        "postgresql+asyncpg://",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout_seconds,
        pool_use_lifo=True,
        isolation_level="READ COMMITTED" if writes else "AUTOCOMMIT",
        execution_options={_READ_ONLY_OPTION: not writes},
        connect_args={"async_creator_fn": creator},
    )
    _sources[engine.sync_engine] = _Source(secret, parse_url(secret.read()).database)
    _replace_unusable_connections(engine)
    return engine


def _session_settings(*, durable: bool, **timeouts_seconds: float) -> dict[str, str]:
    """Return what each session sets, since the server's default may differ, and a 2xx reply promises durability."""
    timeouts = {name: str(round(seconds * 1000)) for name, seconds in timeouts_seconds.items()}
    return {**_SESSION_SETTINGS, "synchronous_commit": "on" if durable else "off", **timeouts}


def url_of(engine: AsyncEngine) -> Secret:
    """Return the URL that the engine was created with."""
    return _sources[engine.sync_engine].url


@asynccontextmanager
async def operator_engine(url: Secret | str, *, writes: bool = True) -> AsyncIterator[AsyncEngine]:
    """Lend an engine to an operator's command, without a statement timeout, and close it at the end of the block."""
    engine = create_engine(url, "walletctl", pool_size=4, statement_timeout_seconds=0, writes=writes)
    try:
        yield engine
    finally:
        await engine.dispose()


def close_connections(engine: AsyncEngine) -> None:
    """Close each connection of the pool at once, whether it is lent or not."""
    for entry in list(_sources[engine.sync_engine].entries):
        if entry.driver_connection is not None:
            entry.driver_connection.terminate()


def replace_connections(engine: AsyncEngine) -> None:
    """Have the pools of this database replace each connection when it is next lent.

    All engines of the same hosts and database: after a switch to another server, a write fails on the old one, and a
    read doesn't.
    """
    database = _sources[engine.sync_engine].database
    for source in list(_sources.values()):
        if source.database == database:
            for entry in list(source.entries):
                if entry.dbapi_connection is not None:
                    entry.invalidate(soft=True)


def _replace_unusable_connections(engine: AsyncEngine) -> None:
    entries = _sources[engine.sync_engine].entries
    event.listen(engine.sync_engine, "connect", lambda _, entry: entries.add(entry))
    event.listen(engine.sync_engine, "connect", _replace_when_ended)
    event.listen(engine.sync_engine, "handle_error", _replace_when_read_only)


def _replace_when_ended(connection: Any, entry: ConnectionPoolEntry) -> None:
    # The server may end all sessions at once. The pool lends none of them again.
    def replace(_: object) -> None:
        if entry.dbapi_connection is connection:
            entry.invalidate(soft=True)

    connection.driver_connection.add_termination_listener(replace)


def _replace_when_read_only(context: ExceptionContext) -> RuntimeError | None:
    if sqlstate(context.original_exception) != READ_ONLY:
        return None
    if context.connection is not None and context.connection.get_execution_options().get(_READ_ONLY_OPTION):
        # The database doesn't refuse by itself, so neither time nor an operator helps. This is a defect in the process.
        return RuntimeError("a statement that writes ran on an engine that only reads")
    # The sessions of the pool were read-only from their beginning. New sessions may be able to write.
    context.is_disconnect = True
    return None
