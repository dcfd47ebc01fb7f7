"""What the routes get from the application."""

from dataclasses import dataclass
from typing import cast

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from wallet_api.settings import WalletApiSettings


@dataclass(frozen=True)
class Context:
    """What a request needs: its settings, an engine that writes and one that only reads (autocommit)."""

    settings: WalletApiSettings
    engine: AsyncEngine
    reader: AsyncEngine


async def context_of(request: Request) -> Context:
    """Return the application's context; a FastAPI dependency."""
    return cast("Context", request.app.state.context)
