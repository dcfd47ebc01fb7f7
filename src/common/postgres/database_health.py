"""Whether the database answers right now, asked all the time, so that no request has to find out by waiting."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from sqlalchemy import ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine

from common.background import in_background
from common.postgres.connections import UninterruptedConnection, UnsuitableDatabaseError, connect
from common.postgres.engine import pool_entries, replace_connections
from common.postgres.errors import DRIVER_ERRORS, TOO_MANY_CONNECTIONS, is_unreachable, message_with_remedy, sqlstate

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 0.25
TIMEOUT_SECONDS: Final = 0.6
_REFUSED_INTERVAL_SECONDS: Final = 1.0
_STALE_SECONDS: Final = 3.0

# Away for every session. What else a server says to a new session, sessions that it has may not hear.
_AWAY: Final = ("08", "53", "57P")

_UNUSABLE: Final = ("away", "refuses")

PING: Final = "SELECT NULL"
"""What a health asks: a text, which says why this process can't use the database, or NULL."""

# No table is locked for it, so a migration that holds one for a while doesn't stop the health.
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
    """Return what a health asks for a process that needs these privileges (`"SELECT INSERT"`, by table)."""
    rows = ", ".join(f"('{table}', '{privilege}')" for table in needed for privilege in needed[table].split())
    return _USABILITY_QUERY.format(writes=str(writes).lower(), needed=rows)


@asynccontextmanager
async def health_checks(
    engine: AsyncEngine, query: str = PING, *, writes: bool = True
) -> AsyncIterator["DatabaseHealth"]:
    """Ask the engine's database on a connection of its own, four times a second, during the block.

    Once there is no answer within 0.6 seconds the database is away, until it answers again. Then the engine's
    connections are cut and no others made: what waits on one fails at once with an error that `is_unreachable`
    knows, and so does what comes. Else both would wait for as long as TCP is patient where a network fell silent,
    or a firewall forgot the connection.

    A database that answers, but refuses, is left to those who ask it: reading may go on. Once it no longer refuses,
    the engine's connections are replaced: a session may stay what it was when it began.

    Args:
        engine: whose database.
        query: what to ask, see `PING`.
        writes: as of `create_engine`.
    """
    health = DatabaseHealth(engine, query, writes=writes)
    await health.check()
    try:
        async with in_background("health-check", health.check_forever):
            yield health
    finally:
        health.close()


class DatabaseHealth:
    """What `health_checks` feels."""

    def __init__(self, engine: AsyncEngine, query: str, *, writes: bool) -> None:
        self._engine = engine
        self._query = query
        self._arguments = dict(engine.dialect.create_connect_args(engine.url)[1])
        if not writes:
            self._arguments.setdefault("target_session_attrs", "any")
        self._connection: UninterruptedConnection | None = None
        self._must_reconnect = False
        self._away_error: BaseException | None = None
        self._state = "not asked yet"
        self._since = self._checked_at = time.monotonic()
        event.listen(engine.sync_engine, "do_connect", self._fail_while_away)
        # Whatever was wrong with that connection, a new session may be told the same.
        event.listen(engine.sync_engine, "invalidate", self._reconnect)
        event.listen(engine.sync_engine, "handle_error", self._reconnect_if_unreachable)

    def state(self) -> str:
        """Return "ok", or why the database can't be used, as of the last beat."""
        age = time.monotonic() - self._checked_at
        return f"not asked for {age:.1f} s" if age > _STALE_SECONDS else self._state

    def _fail_while_away(self, *_: Any) -> None:
        if self._away_error is not None:
            raise ConnectionError("the database is away") from self._away_error

    def _reconnect(self, *_: Any) -> None:
        self._must_reconnect = True

    def _reconnect_if_unreachable(self, context: ExceptionContext) -> None:
        self._must_reconnect = self._must_reconnect or is_unreachable(context.original_exception)

    async def check_forever(self) -> None:
        """Beat for ever."""
        while True:
            # Each beat of a refused health is a login, and a line in the server's log.
            is_refused = self._state != "ok" and self._away_error is None
            await asyncio.sleep(_REFUSED_INTERVAL_SECONDS if is_refused else INTERVAL_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Ask once, and note what came of it."""
        checking = asyncio.create_task(self._query_database())
        try:
            for _ in range(2):
                # Two halves: if this process stands still for longer than that, it uses up one of them only.
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
            # A server that has no connection left for us answers nevertheless, and those of the pool may work.
            self._set_state("ok")
        elif _is_away(error):
            self._set_state(f"away: {message_with_remedy(error)}", error)
        else:
            self._set_state(f"refuses: {message_with_remedy(error)}")

    async def _query_database(self) -> str | None:
        if self._connection is not None and self._keeps_connection():
            try:
                said: str | None = await self._connection.fetchval(self._query)
            except (OSError, *DRIVER_ERRORS):
                # The server, or somebody, ended this one; that says nothing of a new one.
                self.close()
            else:
                return said
        self.close()
        self._must_reconnect = False
        self._connection = await connect(**self._arguments, server_settings={"application_name": "health-check"})
        return await self._connection.fetchval(self._query)  # type: ignore[no-any-return]

    def _keeps_connection(self) -> bool:
        return self._state == "ok" and not self._must_reconnect

    def close(self) -> None:
        """End the health's own connection."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None

    def _set_state(self, state: str, away_error: BaseException | None = None) -> None:
        before, self._state, self._away_error = self._state, state, away_error
        self._log_change(before)
        if away_error is not None:
            self.close()
            for entry in pool_entries(self._engine):
                if entry.driver_connection is not None:
                    entry.driver_connection.terminate()
        elif state == "ok" and before.startswith("refuses"):
            replace_connections(self._engine)

    def _log_change(self, before: str) -> None:
        """Log what changed, and how long it was so."""
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
    return (sqlstate(error) or "08").startswith(_AWAY)
