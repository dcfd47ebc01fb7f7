"""The wallet API on a fresh database, over HTTP without a socket."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import unquote

import asyncpg
import httpx
import pytest
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine

from common.tables.roles import Role
from support.applications import client_of
from support.roles import Roles
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings

Json = dict[str, Any]
PROBLEM_FIELDS = {"type", "title", "status", "detail", "instance", "code"}


@pytest.fixture
def open_client(database_url: str, roles: Roles) -> Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]:
    """Start one more application, as of another API process, with its own settings, and return a client of it.

    It logs in as the API's role.
    """

    @asynccontextmanager
    async def open_(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        url = roles.url(settings.pop("database_url", database_url), Role.API)
        app = create_app(WalletApiSettings(**{"auth": "none", "database_url": url, "log_level": "warning", **settings}))
        async with client_of(app) as client:
            yield client

    return open_


@pytest.fixture
async def client(
    open_client: Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]],
) -> AsyncIterator[httpx.AsyncClient]:
    async with open_client() as client:
        yield client


@pytest.fixture
async def engine(database_url: str, roles: Roles) -> AsyncIterator[AsyncEngine]:
    """An engine that logs in as the API does."""
    async with roles.engine(database_url, Role.API) as engine:
        yield engine


@pytest.fixture
def new_wallet(client: httpx.AsyncClient) -> Callable[..., Awaitable[Json]]:
    """Create a wallet, with a balance if one is given; return it as a client reads it."""

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
def patient() -> dict[str, float]:
    """Settings of an API that waits for locks as long as a test holds them."""
    return {
        "busy_retry_seconds": 60,
        "batch_lock_timeout_seconds": 60,
        "statement_timeout_seconds": 90,
        "transaction_timeout_seconds": 90,
    }


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[Callable[..., Awaitable[list[asyncpg.Record]]]]:
    """Run SQL on a connection of its own, and return the rows."""
    connection = await asyncpg.connect(database_url)

    async def run(statement: str, *arguments: Any) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await connection.fetch(statement, *arguments)
        return rows

    yield run
    await connection.close()


@pytest.fixture
def until_blocked(
    sql: Callable[..., Awaitable[list[asyncpg.Record]]], eventually: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[None]]:
    """Wait until so many of the API's sessions wait for a lock."""
    blocked = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND application_name = 'wallet-api'"
    )

    async def wait(count: int = 1) -> None:
        async def check() -> bool:
            return len(await sql(blocked)) == count

        await eventually(check)

    return wait


@pytest.fixture
def until_idle(
    sql: Callable[..., Awaitable[list[asyncpg.Record]]], eventually: Callable[..., Awaitable[Any]]
) -> Callable[[], Awaitable[None]]:
    """Wait until all of the API's sessions are idle."""
    busy = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
        " AND application_name = 'wallet-api'"
    )

    async def wait() -> None:
        async def check() -> bool:
            return not await sql(busy)

        await eventually(check)

    return wait


@pytest.fixture
def retries() -> Callable[[str], float]:
    """Return how many retries there were so far for a reason."""
    return lambda reason: REGISTRY.get_sample_value("wallet_transaction_retries_total", {"reason": reason}) or 0


@pytest.fixture
def assert_problem() -> Callable[[httpx.Response, int, str], Json]:
    """Check that the response is a problem document of the catalogue; return the document."""

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


BROKEN_PROMISES = """
    WITH told AS (
        SELECT id AS outbox_id, event_id, (item ->> 'wallet_id')::uuid AS wallet_id,
            (item ->> 'version')::bigint AS version, item ->> 'balance_after' AS balance_after
        FROM wallet.outbox, json_array_elements(payload -> 'wallets') AS item
    ), numbered AS (
        SELECT *, row_number() OVER (PARTITION BY wallet_id ORDER BY outbox_id) AS by_id,
            row_number() OVER (PARTITION BY wallet_id ORDER BY event_id) AS by_event
        FROM told
    ), ledger AS (
        SELECT wallet_id, wallet_version, amount_minor, balance_after_minor,
            row_number() OVER w + 1 AS expected_version, sum(amount_minor) OVER w AS expected_balance
        FROM wallet.wallet_transactions WHERE wallet_id IS NOT NULL
        WINDOW w AS (PARTITION BY wallet_id ORDER BY wallet_version)
    )
    SELECT 'a transaction does not sum to zero' AS promise, transaction_id::text AS what
    FROM wallet.wallet_transactions GROUP BY transaction_id, currency HAVING sum(amount_minor) <> 0
    UNION ALL
    SELECT 'versions have holes', wallet_id::text FROM ledger WHERE wallet_version <> expected_version
    UNION ALL
    SELECT 'a balance after is not the sum so far', wallet_id::text FROM ledger
    WHERE balance_after_minor <> expected_balance
    UNION ALL
    SELECT 'a wallet is not its ledger', wallets.id::text
    FROM wallet.wallets LEFT JOIN ledger ON ledger.wallet_id = wallets.id
    GROUP BY wallets.id
    HAVING version <> 1 + count(ledger.wallet_id) OR balance_minor <> coalesce(sum(ledger.amount_minor), 0)
    UNION ALL
    SELECT 'events are not in the order of versions', wallet_id::text FROM numbered
    WHERE version <> by_id OR version <> by_event
    UNION ALL
    SELECT 'a movement has no event', ledger.wallet_id::text
    FROM ledger LEFT JOIN told ON told.wallet_id = ledger.wallet_id AND told.version = ledger.wallet_version
    WHERE told.wallet_id IS NULL
        OR replace(told.balance_after, '.', '')::numeric <> ledger.balance_after_minor
    UNION ALL
    SELECT 'an event has no movement', told.wallet_id::text
    FROM told LEFT JOIN ledger ON told.wallet_id = ledger.wallet_id AND told.version = ledger.wallet_version
    WHERE told.version > 1 AND ledger.wallet_id IS NULL
"""


@pytest.fixture
def assert_promises_kept(
    sql: Callable[..., Awaitable[list[asyncpg.Record]]],
) -> Callable[[], Awaitable[None]]:
    """Check that wallets, ledger and outbox agree: sums, versions without gaps, events in order."""

    async def check() -> None:
        assert [tuple(row) for row in await sql(BROKEN_PROMISES)] == []

    return check
