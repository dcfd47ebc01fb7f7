"""Waits for versions to arrive in the history: one query for all the requests that wait."""

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
class _WantedVersion:
    """A version that one request waits for; `is_over` is set when the request waits no longer."""

    wallet_id: UUID
    version: int
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
        self._wanted: set[_WantedVersion] = set()
        self._polling: asyncio.Task[None] | None = None

    async def wait(self, wallet_id: UUID, version: int, seconds: float) -> None:
        """Return when no version up to this one is missing, when time is up, or when a query failed."""
        wanted = _WantedVersion(wallet_id, version, asyncio.Event())
        self._wanted.add(wanted)
        try:
            if self._polling is None or self._polling.done():
                self._polling = asyncio.create_task(self._poll())
            async with asyncio.timeout(seconds):
                await wanted.is_over.wait()
        except TimeoutError:
            pass
        finally:
            self._wanted.discard(wanted)

    async def close(self) -> None:
        """Stop the polling."""
        if self._polling:
            self._polling.cancel()
            await asyncio.wait({self._polling})

    async def _poll(self) -> None:
        await asyncio.sleep(self._interval_seconds)
        while wanted := list(self._wanted):
            try:
                over = await self._reached(wanted)
            except (Exception, asyncio.CancelledError) as error:
                if is_told_to_end():
                    raise
                # Each request reads by itself then, and gets an error of its own.
                log.warning("versions_not_looked_for", error=error, requests=len(wanted))
                over = wanted
            for version in over:
                version.is_over.set()
            await asyncio.sleep(self._interval_seconds)

    async def _reached(self, wanted: list[_WantedVersion]) -> list[_WantedVersion]:
        versions = {(each.wallet_id, each.version) for each in wanted}
        async with self._reader.connect() as connection:
            reached = await page_queries.reached_versions(connection, versions)
        return [each for each in wanted if (each.wallet_id, each.version) in reached]
