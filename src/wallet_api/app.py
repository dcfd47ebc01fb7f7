"""The wallet API as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from common.api import create_api
from common.database import create_engine, database_state
from common.logs import configure_logs
from common.pulse import pulse_felt
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
        async with pulse_felt(engine):
            yield
        await engine.dispose()

    async def checks() -> dict[str, str]:
        return {"database": await database_state(app.state.context.reader)}

    app = create_api(
        "Wallet API",
        "Wallets, their balances and their ledger. Every movement becomes an event.",
        routes.router,
        lifespan,
        checks,
        settings,
    )
    return app
