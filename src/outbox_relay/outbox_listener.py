"""Listens for the NOTIFY that the wallet API sends after a commit. A relay polls too: a notification may be lost."""

import asyncio
from typing import Final

import asyncpg
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from common.pauses import FAILURE_PAUSES, pause
from common.postgres.errors import DRIVER_ERRORS
from common.postgres.raw_sql import PING, raw_connection
from common.tables.outbox import OUTBOX_CHANNEL

log = structlog.get_logger()

_PING_SECONDS: Final = 5.0
_CONNECTION_ERRORS: Final = (SQLAlchemyError, OSError, TimeoutError, *DRIVER_ERRORS)


class OutboxListener:
    """Listens on its own connection. Each notification wakes one idle task of the relay."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # At most one notification is kept; the first idle task takes it.
        self._notifications: asyncio.Queue[None] = asyncio.Queue(1)

    async def pause(self, stop: asyncio.Event, seconds: float) -> bool:
        """Wait for `seconds`, `stop` or a notification, whichever comes first; return whether a notification came."""
        notification = asyncio.ensure_future(self._notifications.get())
        waiting = {notification, asyncio.ensure_future(stop.wait())}
        _, pending = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return notification not in pending

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop`; after a lost connection, connect again with growing pauses."""
        failures = 0
        while not stop.is_set():
            try:
                async with raw_connection(self._engine) as connection:
                    failures = 0
                    await self._listen(connection, stop)
            except _CONNECTION_ERRORS as error:
                failures += 1
                log.warning("not_listening", error=str(error) or repr(error), failures=failures)
                await pause(stop, FAILURE_PAUSES.after(failures))

    async def _listen(self, connection: asyncpg.Connection, stop: asyncio.Event) -> None:
        try:
            await connection.add_listener(OUTBOX_CHANNEL, self._on_notify)
            while not stop.is_set():
                # Only a query shows that a firewall has dropped the connection.
                async with asyncio.timeout(_PING_SECONDS):
                    await connection.execute(PING.text)
                await pause(stop, _PING_SECONDS)
        finally:
            # The pool must not lend a connection that listens.
            connection.terminate()

    def _on_notify(self, *_: object) -> None:
        if self._notifications.empty():
            self._notifications.put_nowait(None)
