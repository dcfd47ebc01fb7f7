"""The history's read API as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from common.database import create_engine, is_unreachable
from common.http import EXCEPTION_HANDLERS, RequestMetrics, probe_routes
from common.logs import configure_logs
from history_consumer import queries, routes
from history_consumer.context import Context
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
        )
        app.state.context = Context(settings, engine.execution_options(isolation_level="AUTOCOMMIT"))
        yield
        await engine.dispose()

    app = FastAPI(
        title="Wallet history API",
        summary="What happened to wallets, as the events told it: behind the wallets by a little, never wrong.",
        version="1",
        lifespan=lifespan,
        exception_handlers=dict(EXCEPTION_HANDLERS),
        redirect_slashes=False,
    )
    app.add_middleware(RequestMetrics)
    app.include_router(routes.router)

    async def checks() -> dict[str, str]:
        return {"database": await database_state(app.state.context)}

    app.router.routes.extend(probe_routes(checks))
    return app


async def database_state(context: Context) -> str:
    """Return "ok", or why the history can't be read."""
    try:
        async with context.reader.connect() as connection:
            await queries.ping(connection)
    except Exception as error:
        if is_unreachable(error):
            return f"away: {error.__class__.__name__}"
        raise
    return "ok"
