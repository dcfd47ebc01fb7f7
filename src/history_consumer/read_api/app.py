"""The history's read API as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from common.http.api import create_api
from common.logs import configure_logs
from common.postgres.database_health import health_checks
from common.postgres.engine import create_engine
from history_consumer.read_api import page_queries, routes
from history_consumer.read_api.context import HistoryApiContext
from history_consumer.read_api.waiting import VersionWatch
from history_consumer.settings import HistoryApiSettings


def create_app(settings: HistoryApiSettings | None = None) -> FastAPI:
    """Return the application; without settings they come from the environment.

    Raises:
        pydantic.ValidationError: bad configuration.
    """
    settings = settings or HistoryApiSettings()
    configure_logs(settings, "history-api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = create_engine(
            settings.history_database_url,
            "history-api",
            pool_size=settings.database_pool_size,
            pool_timeout_seconds=settings.history_pool_timeout_seconds,
            connect_timeout_seconds=settings.database_connect_timeout_seconds,
            statement_timeout_seconds=settings.history_statement_timeout_seconds,
            writes=False,
        )
        reader = engine.execution_options(isolation_level="AUTOCOMMIT")
        versions = VersionWatch(reader, settings.history_min_version_poll_seconds)
        app.state.context = HistoryApiContext(settings, reader, versions)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.dispose)
            stack.push_async_callback(versions.close)
            app.state.health = await stack.enter_async_context(health_checks(engine, page_queries.USABLE, writes=False))
            yield

    async def checks() -> dict[str, str]:
        # Not by the requests' own pool: load alone would take this process out.
        return {"database": app.state.health.state()}

    app = create_api(
        "Wallet history API",
        "What happened to wallets, as the events told it: behind the wallets by a little, never wrong.",
        [routes.router],
        lifespan,
        checks,
        settings,
    )
    return app
