"""What the routes get from the application."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import cast

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.database_health import DatabaseHealth, health_checks
from common.postgres.engine import create_engine
from history_consumer.read_api import page_queries
from history_consumer.read_api.waiting import VersionPoller
from history_consumer.settings import HistoryApiSettings


@dataclass(frozen=True)
class HistoryApiContext:
    """What a request needs: the settings, an engine that only reads, and the poller for versions."""

    settings: HistoryApiSettings
    reader: AsyncEngine
    versions: VersionPoller


@asynccontextmanager
async def open_context(settings: HistoryApiSettings) -> AsyncIterator[tuple[HistoryApiContext, DatabaseHealth]]:
    """Lend the context, and the health of its database."""
    async with AsyncExitStack() as stack:
        reader = create_engine(
            settings.history_database_url,
            "history-api",
            pool_size=settings.database_pool_size,
            pool_timeout_seconds=settings.history_pool_timeout_seconds,
            connect_timeout_seconds=settings.database_connect_timeout_seconds,
            statement_timeout_seconds=settings.history_statement_timeout_seconds,
            writes=False,
            on_standby=True,
        )
        stack.push_async_callback(reader.dispose)
        versions = VersionPoller(reader, settings.history_min_version_poll_seconds)
        stack.push_async_callback(versions.close)
        health = await stack.enter_async_context(health_checks(reader, query=page_queries.USABLE, writes=False))
        yield HistoryApiContext(settings, reader, versions), health


def context_of(request: Request) -> HistoryApiContext:
    """Return the application's context."""
    return cast("HistoryApiContext", request.app.state.context)
