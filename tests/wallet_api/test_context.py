"""What the application hands to its routes."""

import httpx
import pytest
from sqlalchemy import text

from common.tables.roles import Role
from support.roles import Roles
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings


async def test_the_reader_of_the_wallet_api_is_refused_a_write(database_url: str) -> None:
    app = create_app(WalletApiSettings(auth="none", database_url=database_url, log_level="warning"))
    async with app.router.lifespan_context(app), app.state.context.reader.connect() as connection:
        with pytest.raises(RuntimeError, match="only reads"):
            await connection.execute(text("UPDATE wallet.wallets SET balance_minor = 1"))


async def test_reads_that_have_all_their_connections_leave_writes_theirs(database_url: str, roles: Roles) -> None:
    app = create_app(
        WalletApiSettings(
            auth="none", database_url=roles.url(database_url, Role.API), log_level="warning", database_pool_size=1
        )
    )
    async with (
        app.router.lifespan_context(app),
        app.state.context.reader.connect(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.test") as client,
    ):
        created = await client.post("/wallets", json={"user_id": "ada", "currency": "EUR"})
        assert created.status_code == 201
        # The read finds its only connection taken.
        assert (await client.get(created.headers["location"])).status_code == 503
