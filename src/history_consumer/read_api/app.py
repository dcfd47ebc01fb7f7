"""The history's read API as an ASGI application."""

from functools import partial

from fastapi import FastAPI

from common.access.authenticator import open_authenticator
from common.http.api import create_api
from common.logs import configure_logs
from history_consumer.read_api import routes
from history_consumer.read_api.context import open_context
from history_consumer.settings import HistoryApiSettings


def create_app(settings: HistoryApiSettings | None = None) -> FastAPI:
    """Return the application; without settings they come from the environment.

    Raises:
        pydantic.ValidationError: bad configuration.
    """
    settings = settings or HistoryApiSettings()
    configure_logs(settings, "history-api")
    return create_api(
        "Wallet history API",
        "What happened to wallets, by their events: eventually consistent with the wallets.",
        settings.history_api_host,
        settings,
        partial(open_context, settings),
        partial(open_authenticator, settings, settings.database_url, on_standby=True),
        [routes.router],
    )
