"""The wallet API as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.database import create_engine, is_unreachable
from common.http import EXCEPTION_HANDLERS, RequestMetrics, probe_routes
from common.logs import configure_logs
from wallet_api import routes
from wallet_api.context import Context
from wallet_api.settings import WalletApiSettings


def create_app(settings: WalletApiSettings | None = None) -> FastAPI:
    """Return the application; without settings they come from the environment.

    Raises:
        pydantic.ValidationError: bad configuration.
    """
    settings = settings or WalletApiSettings()
    configure_logs(settings, "wallet-api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = create_engine(
            settings.database_url,
            "wallet-api",
            pool_size=settings.database_pool_size,
            pool_timeout_seconds=settings.pool_timeout_seconds,
            connect_timeout_seconds=settings.database_connect_timeout_seconds,
            statement_timeout_seconds=settings.statement_timeout_seconds,
            lock_timeout_seconds=settings.lock_timeout_seconds,
        )
        app.state.context = Context(settings, engine, engine.execution_options(isolation_level="AUTOCOMMIT"))
        yield
        await engine.dispose()

    app = FastAPI(
        title="Wallet API",
        summary="Wallets, their balances and their ledger. Every movement becomes an event.",
        version="1",
        lifespan=lifespan,
        exception_handlers=dict(EXCEPTION_HANDLERS),
        redirect_slashes=False,
    )
    app.add_middleware(RequestMetrics)
    app.include_router(routes.router)

    async def checks() -> dict[str, str]:
        return {"database": await database_state(app.state.context.reader)}

    app.router.routes.extend(probe_routes(checks))
    return app


async def database_state(engine: AsyncEngine) -> str:
    """Return "ok", or why the database can't be used."""
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except Exception as error:
        if is_unreachable(error):
            return f"away: {error.__class__.__name__}"
        raise
    return "ok"
