"""Waiting for versions to come through: one look at the database for all the requests that wait."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.background import is_told_to_end
from common.rate_limited_logs import RateLimitedLog
from history_consumer.read_api import page_queries

log = RateLimitedLog(structlog.get_logger())


@dataclass(slots=True, eq=False)
class _Waiting:
    wallet_id: UUID
    version: int
    is_over: asyncio.Event


class VersionWatch:
    """Looks for all that wait, again and again while somebody does, on one connection.

    Args:
        reader: an engine that only reads (autocommit).
        interval_seconds: from one look to the next.
    """

    def __init__(self, reader: AsyncEngine, interval_seconds: float) -> None:
        self._reader = reader
        self._interval_seconds = interval_seconds
        self._waiting: set[_Waiting] = set()
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, wallet_id: UUID, version: int, seconds: float) -> None:
        """Return when nothing up to the version is missing, when time is up, or when looking failed: look yourself."""
        waiting = _Waiting(wallet_id, version, asyncio.Event())
        self._waiting.add(waiting)
        try:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_while_somebody_waits())
            async with asyncio.timeout(seconds):
                await waiting.is_over.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(waiting)

    async def close(self) -> None:
        """Give up looking."""
        if self._looking:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    async def _look_while_somebody_waits(self) -> None:
        await asyncio.sleep(self._interval_seconds)
        while looked_for := list(self._waiting):
            try:
                over = await self._reached(looked_for)
            except (Exception, asyncio.CancelledError) as error:
                if is_told_to_end():
                    raise
                # Each looks by itself then, and gets an error of its own.
                log.warning("versions_not_looked_for", error=error, requests=len(looked_for))
                over = looked_for
            for waiting in over:
                waiting.is_over.set()
            await asyncio.sleep(self._interval_seconds)

    async def _reached(self, looked_for: list[_Waiting]) -> list[_Waiting]:
        wanted = {(waiting.wallet_id, waiting.version) for waiting in looked_for}
        async with self._reader.connect() as connection:
            reached = await page_queries.reached_versions(connection, wanted)
        return [waiting for waiting in looked_for if (waiting.wallet_id, waiting.version) in reached]
