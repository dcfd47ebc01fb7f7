"""What the routes get from the application."""

from dataclasses import dataclass
from typing import cast

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from history_consumer.read_api.waiting import VersionWatch
from history_consumer.settings import HistoryApiSettings


@dataclass(frozen=True)
class HistoryApiContext:
    """What a request needs: its settings, an engine that only reads (autocommit), and what waits for versions."""

    settings: HistoryApiSettings
    reader: AsyncEngine
    versions: VersionWatch


async def context_of(request: Request) -> HistoryApiContext:
    """Return the application's context; a FastAPI dependency."""
    return cast("HistoryApiContext", request.app.state.context)
