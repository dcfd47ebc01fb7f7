"""Hearing from the wallet API that there is something to publish. A hint: the relay looks by itself too."""

import asyncio
from typing import Final

import asyncpg
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from common.pauses import FAILURE_PAUSES, pause
from common.postgres.errors import DRIVER_ERRORS
from common.postgres.raw_sql import PING, raw_connection
from common.tables.wallet import OUTBOX_CHANNEL

log = structlog.get_logger()

_PING_SECONDS: Final = 5.0
_LOST: Final = (SQLAlchemyError, OSError, TimeoutError, *DRIVER_ERRORS)


class OutboxListener:
    """Listens on a connection of its own; what it hears wakes one of the relay's tasks that has nothing to do."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # One hint is as good as many; the first task that waits takes it.
        self._hints: asyncio.Queue[None] = asyncio.Queue(1)

    async def pause(self, stop: asyncio.Event, seconds: float) -> bool:
        """Wait that long, or until `stop` or a hint; return whether there was a hint."""
        hint = asyncio.ensure_future(self._hints.get())
        waiting = {hint, asyncio.ensure_future(stop.wait())}
        _, pending = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return hint not in pending

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop`; without a connection, try again with growing pauses."""
        failures = 0
        while not stop.is_set():
            try:
                async with raw_connection(self._engine) as connection:
                    failures = 0
                    await self._listen(connection, stop)
            except _LOST as error:
                failures += 1
                log.warning("not_listening", error=str(error) or repr(error), failures=failures)
                await pause(stop, FAILURE_PAUSES.after(failures))

    async def _listen(self, connection: asyncpg.Connection, stop: asyncio.Event) -> None:
        try:
            await connection.add_listener(OUTBOX_CHANNEL, self._on_notify)
            while not stop.is_set():
                # Nothing else would tell that a firewall forgot the connection.
                async with asyncio.timeout(_PING_SECONDS):
                    await connection.execute(PING.text)
                await pause(stop, _PING_SECONDS)
        finally:
            # Nobody else should get one that listens.
            connection.terminate()

    def _on_notify(self, *_: object) -> None:
        if self._hints.empty():
            self._hints.put_nowait(None)
