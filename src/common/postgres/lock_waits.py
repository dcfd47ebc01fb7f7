"""A migrator's waits for locks, in attempts so short that no request fails meanwhile.

A statement that waits for ACCESS EXCLUSIVE keeps every later request for the table waiting behind it (PostgreSQL
manual, section 13.3.1). So a migrator waits for 0.2 seconds, lets the requests pass, and tries again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.pauses import Pauses, pause
from common.postgres.engine import create_engine, url_of
from common.postgres.errors import DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, sqlstate

LOCK_TIMEOUT_SECONDS: Final = 0.2
"""How long an attempt waits for a lock: less than BATCH_LOCK_TIMEOUT_SECONDS of the API, so that no batch fails."""

WAIT_SECONDS_MAX: Final = 60.0
"""How long a migrator tries in all. It is then the operator's turn: the error names the session in the way."""

_PAUSES: Final = Pauses(0.25, 4.0)
_WATCH_SECONDS: Final = 0.05

ResultT = TypeVar("ResultT")
Tell = Callable[[str], None]
Step = Callable[[AsyncConnection, Sequence[str]], Awaitable[ResultT]]
"""Does its work in transactions of its own. It first locks these tables against vacuums (see `lock_first`)."""

_TURN: Final = "hashtextextended('wallet migrations', 0)"
_TRY_LOCK: Final = text(f"SELECT pg_try_advisory_lock({_TURN})")

_SESSION: Final = """
    pid, coalesce(nullif(application_name, ''), backend_type, 'unknown'), usename,
    cast(extract(epoch FROM clock_timestamp() - xact_start) AS float)
"""

# PostgreSQL manual, section 9.27 (pg_blocking_pids) and section 53.13 (pg_locks). The start of another role's
# transaction is hidden from a role that is not a member of pg_read_all_stats.
_HOLDERS: Final = text(f"""
    SELECT coalesce(waiting.relation::regclass::text, 'a transaction that must end first'),
        coalesce(relkind IN ('r', 'p') AND nspname IN ('wallet', 'history'), false), {_SESSION}
    FROM (SELECT pid AS migrator, relation FROM pg_locks WHERE pid = :migrator AND NOT granted) AS waiting
    CROSS JOIN unnest(pg_blocking_pids(migrator)) AS blocking (pid)
    JOIN pg_stat_activity USING (pid)
    LEFT JOIN pg_class ON pg_class.oid = waiting.relation
    LEFT JOIN pg_namespace ON pg_namespace.oid = relnamespace
""")  # noqa: S608

_MIGRATORS: Final = text(f"""
    SELECT 'the right to migrate', false, {_SESSION}
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND pid <> :migrator
        AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (classid::bigint << 32 | objid::bigint) = {_TURN}
""")  # noqa: S608


class _Patience:
    """The pauses between attempts, for 60 seconds in all from now on."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + WAIT_SECONDS_MAX
        self._attempts = 0

    def pause_seconds(self) -> float | None:
        """Return the pause after an attempt that failed, or None if it would last too long."""
        self._attempts += 1
        seconds = _PAUSES.after(self._attempts)
        return None if time.monotonic() + seconds > self._deadline else seconds


class LockHolder(NamedTuple):
    """A session that holds what a migrator waits for: `seconds` is the age of its transaction, None if hidden."""

    locked: str
    is_table: bool
    pid: int
    application: str
    role: str | None
    seconds: float | None

    def __str__(self) -> str:
        age = "" if self.seconds is None else f", for {self.seconds:.0f} s"
        return f"pid {self.pid} ({self.application}, role {self.role}{age}) holds {self.locked}"


class LocksUnavailableError(Exception):
    """Other sessions held a lock for too long. What was migrated before stays; the rest was not begun."""

    def __init__(self, holders: Sequence[LockHolder]) -> None:
        pids = ", ".join(f"SELECT pg_terminate_backend({holder.pid})" for holder in holders)
        way_out = f"wait for its end, or end it with {pids}" if holders else "see pg_locks"
        super().__init__(
            f"no lock within {WAIT_SECONDS_MAX:.0f} s: {_in_words(holders)} ({way_out}; then run the command again)"
        )


def _in_words(holders: Sequence[LockHolder]) -> str:
    return "; ".join(map(str, holders)) or "a session that has ended meanwhile held it"


@dataclass
class Migrator:
    """The only migrator of its database. Its sessions have the short `lock_timeout`.

    Args:
        connection: holds the advisory lock until it is closed.
        pid: the connection's.
        watch: another connection, which looks for the sessions that hold a lock.
        tell: gets a line for each wait.
    """

    connection: AsyncConnection
    pid: int
    watch: AsyncConnection
    tell: Tell

    async def run(self, step: Step[ResultT]) -> ResultT:
        """Run `step` until it gets its locks, with growing pauses.

        Raises:
            LocksUnavailableError: it did not get them within 60 seconds.
            sqlalchemy.exc.DBAPIError: the database is away or refuses.
        """
        patience = _Patience()
        tables: set[str] = set()
        holders: list[LockHolder] = []
        while True:
            try:
                async with self._watched(holders):
                    return await step(self.connection, sorted(tables))
            except DBAPIError as error:
                await self.connection.rollback()
                if sqlstate(error) not in {LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED}:
                    raise
            if (pause_seconds := patience.pause_seconds()) is None:
                raise LocksUnavailableError(holders)
            tables |= {holder.locked for holder in holders if holder.is_table}
            self.tell(f"{_in_words(holders)}; trying again in {pause_seconds:g} s")
            await asyncio.sleep(pause_seconds)

    @asynccontextmanager
    async def _watched(self, holders: list[LockHolder]) -> AsyncIterator[None]:
        """Put into `holders` the sessions for which the block waits, as seen last."""
        ended = asyncio.Event()

        async def look() -> None:
            while not ended.is_set():
                await pause(ended, _WATCH_SECONDS)
                holders[:] = await self._find(_HOLDERS) or holders

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            ended.set()
            # A watch that fails tells nothing of the step, which has its own result or error.
            await asyncio.gather(looking, return_exceptions=True)

    async def wait_for_turn(self) -> None:
        """Take the advisory lock. A statement that waits for it would keep an index from being built concurrently.

        Raises:
            LocksUnavailableError: another migrator had it for 60 seconds.
        """
        patience = _Patience()
        while not await self.connection.scalar(_TRY_LOCK):
            await self.connection.rollback()
            if (pause_seconds := patience.pause_seconds()) is None:
                raise LocksUnavailableError(await self._find(_MIGRATORS))
            await asyncio.sleep(pause_seconds)
        await self.connection.commit()

    async def _find(self, query: TextClause) -> list[LockHolder]:
        return [LockHolder(*row) for row in await self.watch.execute(query, {"migrator": self.pid})]


@asynccontextmanager
async def migrator(engine: AsyncEngine, tell: Tell) -> AsyncIterator[Migrator]:
    """Lend the database's only migrator. A second one waits for its end, for 60 seconds at most.

    Raises:
        LocksUnavailableError: another migrator took longer.
    """
    own = create_engine(
        url_of(engine),
        "walletctl",
        pool_size=2,
        lock_timeout_seconds=LOCK_TIMEOUT_SECONDS,
        statement_timeout_seconds=0,
    )
    try:
        async with own.connect() as connection, own.connect() as watch:
            await watch.execution_options(isolation_level="AUTOCOMMIT")
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            await connection.commit()
            one = Migrator(connection, pid, watch, tell)
            await one.wait_for_turn()
            yield one
    finally:
        # Its session's end gives the advisory lock back.
        await own.dispose()


_SET_PATIENT: Final = text("""
    SELECT set_config('lock_timeout', (2 * setting::integer)::text, true)
    FROM pg_settings WHERE name = 'deadlock_timeout'
""")


def lock_first(connection: Connection, tables: Sequence[str]) -> None:
    """Lock tables against vacuums until the transaction ends. Requests go on.

    PostgreSQL ends an autovacuum that blocks a lock, but only after the lock has waited for `deadlock_timeout`. No
    request waits behind this lock, so it may wait that long.
    """
    if tables:
        connection.execute(_SET_PATIENT)
        connection.execute(text(f"LOCK TABLE {', '.join(tables)} IN SHARE UPDATE EXCLUSIVE MODE"))
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
