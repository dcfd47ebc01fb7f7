"""The wallet API as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from fastapi import FastAPI

from common.background import in_background
from common.garbage_collector import tune_garbage_collector
from common.http.api import create_api
from common.logs import configure_logs
from common.postgres.database_health import health_checks
from common.postgres.durability import tell_unsafe_settings
from common.postgres.engine import create_engine
from wallet_api import read_queries, routes
from wallet_api.context import make_context
from wallet_api.relay_notifier import RelayNotifier
from wallet_api.settings import WalletApiSettings

# A process that hangs in the middle of a batch holds the locks of all its wallets: PostgreSQL ends its session then.
_HUNG_TRANSACTION_SECONDS: Final = 5.0


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
            lock_timeout_seconds=settings.batch_lock_timeout_seconds,
            idle_in_transaction_timeout_seconds=_HUNG_TRANSACTION_SECONDS,
            transaction_timeout_seconds=settings.transaction_timeout_seconds + _HUNG_TRANSACTION_SECONDS,
        )
        tell_unsafe_settings(engine)
        hints = create_engine(
            settings.database_url,
            "wallet-api-hints",
            pool_size=1,
            connect_timeout_seconds=settings.database_connect_timeout_seconds,
            durable=False,
        )
        wake_up = RelayNotifier(hints)
        context = app.state.context = make_context(settings, engine, wake_up.note_commit)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.dispose)
            stack.push_async_callback(hints.dispose)
            await stack.enter_async_context(in_background("wake_up", wake_up.run))
            stack.push_async_callback(context.close)
            app.state.health = await stack.enter_async_context(health_checks(engine, read_queries.USABLE))
            yield

    async def checks() -> dict[str, str]:
        # Not by the requests' own pool: load alone would take this process out.
        return {"database": app.state.health.state()}

    app = create_api(
        "Wallet API",
        "Wallets, their balances and their ledger. Every movement becomes an event.",
        [routes.hot_router, routes.router],
        lifespan,
        checks,
        settings,
        direct=routes.hot_router.routes,
        readers=routes.READERS,
    )
    # A process serves one application, and by now has imported and made nearly all that it will keep.
    tune_garbage_collector()
    return app
