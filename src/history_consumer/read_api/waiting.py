"""Waits for versions to arrive in the history: one query for all the requests that wait."""

import asyncio
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.background import is_told_to_end
from common.rate_limited_logs import RateLimitedLog
from history_consumer.read_api import page_queries
from history_consumer.read_api.page_queries import WantedVersion

log = RateLimitedLog(structlog.get_logger())


@dataclass(slots=True, eq=False)
class _Wait:
    """One request's wait for a version; `is_over` is set when the request waits no longer."""

    wanted: WantedVersion
    is_over: asyncio.Event


class VersionPoller:
    """Polls for all wanted versions, on one connection, while any request waits.

    Args:
        reader: a read-only engine (autocommit).
        interval_seconds: from one query to the next.
    """

    def __init__(self, reader: AsyncEngine, interval_seconds: float) -> None:
        self._reader = reader
        self._interval_seconds = interval_seconds
        self._waits: set[_Wait] = set()
        self._polling: asyncio.Task[None] | None = None

    async def wait(self, wanted: WantedVersion, seconds: float) -> None:
        """Return when no version up to this one is missing, when time is up, or when a query failed."""
        wait = _Wait(wanted, asyncio.Event())
        self._waits.add(wait)
        try:
            if self._polling is None or self._polling.done():
                self._polling = asyncio.create_task(self._poll())
            async with asyncio.timeout(seconds):
                await wait.is_over.wait()
        except TimeoutError:
            pass
        finally:
            self._waits.discard(wait)

    async def close(self) -> None:
        """Stop the polling."""
        if self._polling:
            self._polling.cancel()
            await asyncio.wait({self._polling})

    async def _poll(self) -> None:
        await asyncio.sleep(self._interval_seconds)
        while waits := list(self._waits):
            try:
                over = await self._reached(waits)
            except (Exception, asyncio.CancelledError) as error:
                if is_told_to_end():
                    raise
                # Each request reads by itself then, and gets an error of its own.
                log.warning("versions_not_looked_for", error=error, requests=len(waits))
                over = waits
            for wait in over:
                wait.is_over.set()
            await asyncio.sleep(self._interval_seconds)

    async def _reached(self, waits: list[_Wait]) -> list[_Wait]:
        async with self._reader.connect() as connection:
            reached = await page_queries.reached_versions(connection, {wait.wanted for wait in waits})
        return [wait for wait in waits if wait.wanted in reached]
