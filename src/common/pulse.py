"""Whether the database answers right now, asked all the time, so that no request has to find out by waiting."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from weakref import WeakSet

import asyncpg
import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from common.database import DRIVER_ERRORS, PING, TOO_MANY_CONNECTIONS, is_unreachable, sqlstate

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 0.25
PATIENCE_SECONDS: Final = 0.6


@asynccontextmanager
async def pulse_felt(engine: AsyncEngine) -> AsyncIterator[None]:
    """Ask the engine's database `SELECT 1` on a connection of its own, four times a second, during the block.

    Once there is no answer within 0.6 seconds the database is away, until it answers again. Then the engine's
    connections are cut and no others made: what waits on one fails at once with an error that `is_unreachable`
    knows, and so does what comes. Else both would wait for as long as TCP is patient where a network fell silent,
    or a firewall forgot the connection.
    """
    pulse = _Pulse(engine)
    await pulse.beat()
    beating = asyncio.create_task(pulse.repeat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.wait({beating})
        pulse.hang_up()


class _Pulse:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: asyncpg.Connection | None = None
        self._entries: WeakSet[ConnectionPoolEntry] = WeakSet()
        self._absence: BaseException | None = None
        self._away_since = 0.0
        event.listen(engine.sync_engine, "do_connect", self._refuse_while_away)
        event.listen(engine.sync_engine, "connect", lambda _, entry: self._entries.add(entry))

    def _refuse_while_away(self, *_: Any) -> None:
        if self._absence is not None:
            raise ConnectionError("the database is away") from self._absence

    async def repeat(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            await self.beat()

    async def beat(self) -> None:
        asking = asyncio.create_task(self._ask())
        try:
            for _ in range(2):
                # Two halves: if this process stands still for longer than that, it uses up one of them only.
                await asyncio.wait({asking}, timeout=PATIENCE_SECONDS / 2)
        finally:
            asking.cancel()
        await asyncio.wait({asking})
        error = TimeoutError("no answer") if asking.cancelled() else asking.exception()
        # A server that has no connection left for us answers nevertheless, and those of the pool may work.
        if error is None or not is_unreachable(error) or sqlstate(error) == TOO_MANY_CONNECTIONS:
            self._note_answer()
        else:
            self._note_absence(error)

    async def _ask(self) -> None:
        if self._connection is not None:
            try:
                await self._connection.execute(PING.text)
            except (OSError, *DRIVER_ERRORS):
                # The server, or somebody, ended this one; that says nothing of a new one.
                self.hang_up()
            else:
                return
        _, arguments = self._engine.dialect.create_connect_args(self._engine.url)
        self._connection = await asyncpg.connect(**arguments, server_settings={"application_name": "pulse"})
        await self._connection.execute(PING.text)

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None

    def _note_answer(self) -> None:
        if self._absence is not None:
            log.info("database_back", away_seconds=round(time.monotonic() - self._away_since, 3))
        self._absence = None

    def _note_absence(self, error: BaseException) -> None:
        if self._absence is None:
            self._away_since = time.monotonic()
            log.warning("database_away", error=repr(error))
        self._absence = error
        self.hang_up()
        for entry in list(self._entries):
            if entry.driver_connection is not None:
                entry.driver_connection.terminate()
