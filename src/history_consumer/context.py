"""What the routes get from the application."""

from dataclasses import dataclass
from typing import cast

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from history_consumer.settings import HistoryApiSettings


@dataclass(frozen=True)
class Context:
    """What a request needs: its settings and an engine that only reads (autocommit)."""

    settings: HistoryApiSettings
    reader: AsyncEngine


async def context_of(request: Request) -> Context:
    """Return the application's context; a FastAPI dependency."""
    return cast("Context", request.app.state.context)
