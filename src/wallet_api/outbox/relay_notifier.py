"""Notifies the relays of new events, so that they needn't poll for them.

If a notification is lost, a relay finds the events at its next poll, some milliseconds later. No transaction that moves
money sends one. A transaction with a NOTIFY locks the whole cluster while it commits, which would queue up the commits
of all processes (PostgreSQL, async.c, `PreCommit_Notify`).
"""

import asyncio
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.errors import is_unreachable
from common.postgres.raw_sql import raw_connection
from common.rate_limited_logs import RateLimitedLog
from wallet_api.outbox import queries

log = RateLimitedLog(structlog.get_logger())

# After a burst the relays batch by themselves (outbox_relay/adaptive_batching.py), and notifications only cost.
_SHORTEST_SECONDS: Final = 0.005
_LONGEST_SECONDS: Final = 0.04
_SECONDS_A_COMMAND: Final = 0.001
_PAUSE_SECONDS: Final = 1.0


class RelayNotifier:
    """Sends one NOTIFY for all the commits of some milliseconds, on a connection of its own.

    Args:
        engine: of one connection. Not durable: a NOTIFY takes a transaction id, and a durable commit of it would wait
            for the disk.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._committed = asyncio.Event()
        self._commands = 0

    def note_commit(self, commands: int) -> None:
        """Note that so many commands were committed, whose events are to be published."""
        self._commands += commands
        self._committed.set()

    async def run(self) -> None:
        """Notify until cancelled; while the database is unavailable, pause."""
        while True:
            await self._committed.wait()
            self._committed.clear()
            pause_seconds = min(_LONGEST_SECONDS, max(_SHORTEST_SECONDS, self._commands * _SECONDS_A_COMMAND))
            self._commands = 0
            try:
                async with raw_connection(self._engine) as connection:
                    await queries.notify_relays(connection)
            except Exception as error:
                if not is_unreachable(error):
                    raise
                pause_seconds = _PAUSE_SECONDS
                log.warning("relays_not_woken", error=error, pause_seconds=pause_seconds)
            await asyncio.sleep(pause_seconds)
