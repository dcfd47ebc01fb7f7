"""Health checks of the database, four times a second.

A request that comes while the database is away fails at once and need not wait for its own time-out.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy import ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine

from common.background import in_background
from common.postgres.connections import UninterruptedConnection, UnsuitableDatabaseError, connect
from common.postgres.engine import close_connections, replace_connections, url_of
from common.postgres.errors import DRIVER_ERRORS, TOO_MANY_CONNECTIONS, is_unreachable, message_with_remedy, sqlstate

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 0.25
TIMEOUT_SECONDS: Final = 0.6
_REFUSED_INTERVAL_SECONDS: Final = 1.0
_STALE_SECONDS: Final = 3.0

# These mean that the database is away for every session. Other errors may only concern new sessions.
_AWAY_STATES: Final = ("08", "53", "57P")

_UNUSABLE: Final = ("away", "refuses")

PING: Final = "SELECT NULL"
"""The simplest health check. Its result is NULL, or a text that says why this process can't use the database."""

# The query locks no table, so a migration that holds a lock doesn't delay the health check.
_USABILITY_QUERY: Final = """
    SELECT CASE
        WHEN {writes} AND current_setting('transaction_read_only') = 'on'
        THEN 'the database is read-only (a standby, or default_transaction_read_only is on)'
        WHEN {writes} AND EXISTS (
            SELECT FROM pg_stat_activity WHERE usename = current_user AND wait_event = 'SyncRep'
            AND query_start < clock_timestamp() - interval '3 seconds'
        )
        THEN 'commits wait for synchronous standbys (see pg_stat_replication and synchronous_standby_names)'
        ELSE (
            SELECT format('a privilege is missing (GRANT %s ON %s TO %I)', privilege, name, current_user)
            FROM (VALUES {needed}) AS needed (name, privilege) WHERE NOT has_any_column_privilege(name, privilege)
            LIMIT 1
        )
    END
"""


def usability_query(needed: Mapping[str, str], *, writes: bool) -> str:
    """Return a health check for a process that needs these privileges (`"SELECT INSERT"`, by table).

    Args:
        needed: privileges by table.
        writes: whether the process writes, so that a read-only database is of no use to it.
    """
    rows = ", ".join(f"('{table}', '{privilege}')" for table in needed for privilege in needed[table].split())
    return _USABILITY_QUERY.format(writes=str(writes).lower(), needed=rows)


@asynccontextmanager
async def health_checks(
    *engines: AsyncEngine, query: str = PING, writes: bool = True
) -> AsyncIterator["DatabaseHealth"]:
    """Check the engines' database during the block, four times a second, on a connection of the check's own.

    The database is away when it hasn't answered within 0.6 seconds, until it answers again. Meanwhile the engines'
    connections are closed and they make no new ones, so that statements fail at once with an error that
    `is_unreachable` knows. Without the check, a statement would wait for TCP's time-outs when the network is silent
    or a firewall has dropped the connection.

    A database that answers but refuses doesn't stop the engines: reads may still succeed. When it no longer refuses,
    the engines' connections are replaced, since a session may keep the restriction that it began with.

    Args:
        engines: of one database. Their URLs are the same.
        query: the health check, see `PING`.
        writes: whether the process writes. If not, of several hosts any one will do.
    """
    health = DatabaseHealth(engines, query, writes=writes)
    await health.check()
    try:
        async with in_background("health-check", health.check_forever):
            yield health
    finally:
        health.close()


class DatabaseHealth:
    """The state of a database, as the last health check found it."""

    def __init__(self, engines: Sequence[AsyncEngine], query: str, *, writes: bool) -> None:
        self._engines = engines
        self._query = query
        self._connect = partial(
            connect, url_of(engines[0]), "health-check", {}, timeout_seconds=None, on_standby=not writes
        )
        self._connection: UninterruptedConnection | None = None
        self._is_stale = False
        self._away_error: BaseException | None = None
        self._state = "not checked yet"
        self._since = self._checked_at = time.monotonic()
        for engine in engines:
            event.listen(engine.sync_engine, "do_connect", self._fail_while_away)
            # A new session may meet the error that ended a connection of the pool. The next check finds out.
            event.listen(engine.sync_engine, "invalidate", self._mark_stale)
            event.listen(engine.sync_engine, "handle_error", self._mark_stale_if_unreachable)

    def state(self) -> str:
        """Return "ok", or why the database can't be used, as of the last check."""
        age = time.monotonic() - self._checked_at
        return f"not checked for {age:.1f} s" if age > _STALE_SECONDS else self._state

    def _fail_while_away(self, *_: Any) -> None:
        if self._away_error is not None:
            raise ConnectionError("the database is away") from self._away_error

    def _mark_stale(self, *_: Any) -> None:
        self._is_stale = True

    def _mark_stale_if_unreachable(self, context: ExceptionContext) -> None:
        self._is_stale = self._is_stale or is_unreachable(context.original_exception)

    async def check_forever(self) -> None:
        """Check again and again."""
        while True:
            # Each check of a database that refuses is a new login, and a line in the server's log.
            is_refused = self._state != "ok" and self._away_error is None
            await asyncio.sleep(_REFUSED_INTERVAL_SECONDS if is_refused else INTERVAL_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Check once, and set the state."""
        checking = asyncio.create_task(self._query_database())
        try:
            for _ in range(2):
                # In two halves: a process that is suspended for longer than that uses up only one of them.
                await asyncio.wait({checking}, timeout=TIMEOUT_SECONDS / 2)
        finally:
            checking.cancel()
        await asyncio.wait({checking})
        self._checked_at = time.monotonic()
        error = TimeoutError("no answer") if checking.cancelled() else checking.exception()
        if error is None:
            refusal = checking.result()
            self._set_state(f"refuses: {refusal}" if refusal else "ok")
        elif sqlstate(error) == TOO_MANY_CONNECTIONS:
            # The server answers though it has no connection left, and the pool's connections may work.
            self._set_state("ok")
        elif _is_away(error):
            self._set_state(f"away: {message_with_remedy(error)}", error)
        else:
            self._set_state(f"refuses: {message_with_remedy(error)}")

    async def _query_database(self) -> str | None:
        if self._connection is not None and self._may_keep_connection():
            try:
                refusal: str | None = await self._connection.fetchval(self._query)
            except (OSError, *DRIVER_ERRORS):
                # The session has ended, perhaps by an operator. A new session may work.
                self.close()
            else:
                return refusal
        self.close()
        self._is_stale = False
        self._connection = await self._connect()
        return await self._connection.fetchval(self._query)  # type: ignore[no-any-return]

    def _may_keep_connection(self) -> bool:
        return self._state == "ok" and not self._is_stale

    def close(self) -> None:
        """Close the check's own connection."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None

    def _set_state(self, state: str, away_error: BaseException | None = None) -> None:
        before, self._state, self._away_error = self._state, state, away_error
        self._log_change(before)
        if away_error is not None:
            self.close()
            for engine in self._engines:
                close_connections(engine)
        elif state == "ok" and before.startswith("refuses"):
            replace_connections(self._engines[0])

    def _log_change(self, before: str) -> None:
        """Log a change of the state, and how long the database was unusable."""
        kind, kind_before = self._state.partition(":")[0], before.partition(":")[0]
        if kind == kind_before:
            return
        now = time.monotonic()
        if kind != "ok":
            log.warning("database_away" if kind == "away" else "database_refuses", error=self._state)
        elif kind_before in _UNUSABLE:
            log.info("database_back", away_seconds=round(now - self._since, 3))
        if kind_before not in _UNUSABLE:
            self._since = now


def _is_away(error: BaseException) -> bool:
    if isinstance(error, UnsuitableDatabaseError) or not is_unreachable(error):
        return False
    return (sqlstate(error) or "08").startswith(_AWAY_STATES)
