"""The wallet API on a fresh database, asked over HTTP without a socket."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import unquote

import asyncpg
import httpx
import pytest

from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings

Json = dict[str, Any]
PROBLEM_FIELDS = {"type", "title", "status", "detail", "instance", "code"}


@pytest.fixture
def open_client(database_url: str) -> Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]:
    """Start one more API process's worth of application, with settings of its own, and talk to it."""

    @asynccontextmanager
    async def open_(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(WalletApiSettings(**{"database_url": database_url, "log_level": "warning", **settings}))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://wallet.test") as client,
        ):
            yield client

    return open_


@pytest.fixture
async def client(
    open_client: Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]],
) -> AsyncIterator[httpx.AsyncClient]:
    async with open_client() as client:
        yield client


@pytest.fixture
def new_wallet(client: httpx.AsyncClient) -> Callable[..., Awaitable[Json]]:
    """Make a wallet, with money in it if wanted; returns it as a client reads it."""

    async def make(user_id: str = "ada", currency: str = "EUR", balance: str | None = None, **fields: Any) -> Json:
        created = await client.post("/wallets", json={"user_id": user_id, "currency": currency, **fields})
        assert created.status_code == 201, created.text
        wallet: Json = created.json()
        if balance is not None:
            funded = await client.post(f"/wallets/{wallet['id']}/fund", json={"amount": balance})
            assert funded.status_code == 200, funded.text
            wallet = (await client.get(f"/wallets/{wallet['id']}")).json()
        return wallet

    return make


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[Callable[..., Awaitable[list[asyncpg.Record]]]]:
    """Run SQL beside the API, from a connection of its own, and return the rows."""
    connection = await asyncpg.connect(database_url)

    async def run(statement: str, *arguments: Any) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await connection.fetch(statement, *arguments)
        return rows

    yield run
    await connection.close()


@pytest.fixture
def assert_problem() -> Callable[[httpx.Response, int, str], Json]:
    """Check that the response is a problem document as the catalogue has it; returns the document."""

    def check(response: httpx.Response, status: int, code: str) -> Json:
        document: Json = response.json()
        assert (response.status_code, document["code"]) == (status, code), response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert document.keys() >= PROBLEM_FIELDS
        assert document["status"] == status
        assert document["type"] == f"urn:wallet:problem:{code}"
        assert document["title"]
        assert document["detail"]
        assert document["instance"].isascii()
        assert unquote(document["instance"]) == response.request.url.path
        return document

    return check
