"""`walletctl api`."""

import typer

from common.http.server import serve
from walletctl.console import load_settings

app = typer.Typer(help="The wallet API.", no_args_is_help=True)


@app.command("serve", epilog="Example:  DATABASE_URL=postgresql://postgres@127.0.0.1:5432/wallet walletctl api serve")
def serve_api() -> None:
    """Serve the wallet API over HTTP until SIGTERM.

    Settings come from the environment: DATABASE_URL, WALLET_API_HOST, WALLET_API_PORT, WALLET_API_WORKERS, …
    """
    from wallet_api.settings import WalletApiSettings
    from wallet_api.startup import WRITE_CONNECTIONS_MAX

    settings = load_settings(WalletApiSettings)
    serve(
        "wallet_api.app:create_app",
        settings.wallet_api_host,
        settings.wallet_api_port,
        settings,
        workers=settings.wallet_api_workers,
        descriptors_kept=settings.database_pool_size + WRITE_CONNECTIONS_MAX,
    )
