"""The wallet API as an ASGI application."""

from functools import partial

from fastapi import FastAPI

from common.access.authenticator import open_authenticator
from common.garbage_collector import tune_garbage_collector
from common.http.api import create_api
from common.http.settings import items_of
from common.logs import configure_logs
from wallet_api import operation_routes, routes
from wallet_api.batches import routes as batches
from wallet_api.holds import routes as holds
from wallet_api.limits import routes as limits
from wallet_api.lookups import routes as lookups
from wallet_api.openapi_links import add_links
from wallet_api.settings import WalletApiSettings
from wallet_api.startup import open_context
from wallet_api.statements import routes as statements


def create_app(settings: WalletApiSettings | None = None) -> FastAPI:
    """Return the application; without settings they come from the environment.

    Raises:
        pydantic.ValidationError: bad configuration.
    """
    settings = settings or WalletApiSettings()
    configure_logs(settings, "wallet-api")
    owner_operations = items_of(settings.owner_operations)
    fast = [
        routes.hot_router,
        operation_routes.make_router(owner_operations),
        batches.make_router(owner_operations),
    ]
    app = create_api(
        "Wallet API",
        "Wallets, their balances and their ledger. Every movement becomes an event.",
        settings.wallet_api_host,
        settings,
        partial(open_context, settings),
        partial(open_authenticator, settings, settings.database_url),
        [
            *fast,
            routes.router,
            limits.router,
            holds.router,
            lookups.router,
            statements.router,
        ],
        fast,
    )
    add_links(app)
    # A process serves one application, and by now has imported and made nearly all that it will keep.
    tune_garbage_collector()
    return app
