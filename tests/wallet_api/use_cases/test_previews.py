"""A preview says what an operation would do now, and does nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import product
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from httpx import AsyncClient, Response

from support.limits import LIMITLESS
from wallet_api.operations.catalogue import ALL_OPERATIONS

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]

# What the clock or the operation itself makes.
MADE = {"transaction_id", "created_at", "expires_at"}


@pytest.fixture
async def client(open_client: OpenClient) -> Any:
    """A client of an API whose releaser never comes by."""
    async with open_client(hold_release_seconds=86_400) as client:
        yield client


async def everything(sql: Sql) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables of the wallets."""
    tables = await sql("SELECT tablename FROM pg_tables WHERE schemaname = 'wallet' ORDER BY tablename")
    return {
        name: [tuple(row) for row in await sql(f"SELECT t::text FROM wallet.{name} AS t ORDER BY 1")]
        for (name,) in tables
    }


def comparable(value: Any) -> Any:
    """Return what must be the same in a preview and in the reply to the operation."""
    if isinstance(value, dict):
        return {name: comparable(member) for name, member in value.items() if name not in MADE | {"preview"}}
    return value


def method_of(path: str) -> str:
    return "PUT" if path.endswith("/limits") else "POST"


@pytest.fixture
async def requests(client: AsyncClient, new_wallet: NewWallet, sql: Sql) -> dict[str, tuple[str, Json]]:
    """One request for each operation. Ada's wallet has an overdue hold, which some of them must release first."""
    ada, bob = (await new_wallet(balance="10"))["id"], (await new_wallet("bob"))["id"]
    frozen, closed = (await new_wallet())["id"], (await new_wallet())["id"]
    placed = [(await client.post(f"/wallets/{ada}/holds", json={"amount": "3"})).headers["location"] for _ in "123"]
    overdue = placed[2].removeprefix("/holds/")
    await sql("UPDATE wallet.holds SET expires_at = clock_timestamp() WHERE id = $1", UUID(overdue))
    why, to_bob, path = {"reason": "a test"}, {"to_wallet_id": bob}, f"/wallets/{ada}"
    await client.post(f"/wallets/{frozen}/freeze", json={"blocks": "all", **why})
    await client.post(f"/wallets/{closed}/close", json=why)
    (funded,) = (await client.get("/transactions", params={"wallet_id": ada, "limit": 1, "order": "asc"})).json()[
        "items"
    ]
    return {
        "reverse": (f"/transactions/{funded['transaction_id']}/reverse", {"amount": "4", **why}),
        "limits": (f"{path}/limits", {**LIMITLESS, "overdraft_limit": "5"}),
        "fund": (f"{path}/fund", {"amount": "1", "external_id": "order 1"}),
        "withdraw": (f"{path}/withdraw", {"amount": "4"}),
        "transfer": (f"{path}/transfer", {"amount": "4", "metadata": {"a": [1.5, "x"]}, **to_bob}),
        "split": (f"{path}/split", {"legs": [{"amount": "1", **to_bob}]}),
        "holds": (f"{path}/holds", {"amount": "1", **to_bob}),
        "capture": (f"{placed[0]}/capture", {"amount": "2", "final": False}),
        "void": (f"{placed[1]}/void", {"reason": "no show"}),
        "freeze": (f"{path}/freeze", {"blocks": "in", **why}),
        "unfreeze": (f"/wallets/{frozen}/unfreeze", why),
        "close": (f"/wallets/{bob}/close", {"sweep_to_wallet_id": ada, **why}),
        "reopen": (f"/wallets/{closed}/reopen", why),
    }


@pytest.mark.parametrize("name", [operation.name for operation in ALL_OPERATIONS])
async def test_a_preview_says_what_the_operation_then_does_and_changes_no_table(
    client: AsyncClient, sql: Sql, requests: dict[str, tuple[str, Json]], name: str
) -> None:
    path, body = requests[name]
    if name == "close":
        await client.post(path.replace("close", "fund"), json={"amount": "2"})
    before = await everything(sql)
    request = partial(
        client.request,
        method_of(path),
        json=body,
        headers={"Idempotency-Key": "k", "If-Match": "*"},
    )
    preview = await request(f"{path}?preview=true")
    assert await everything(sql) == before
    assert preview.status_code == 200, preview.text
    assert preview.headers.keys().isdisjoint({"etag", "location", "idempotent-replayed"})
    told = preview.json()
    assert (told["preview"], told["transaction_id"]) == (True, None)
    done = await request(f"{path}?preview=false")
    assert done.is_success, done.text
    made = done.json()
    assert "preview" not in made
    if name == "holds":
        assert told["hold"].pop("id") is None
        made["hold"].pop("id")
    if name == "close":
        assert told["sweep"]["transaction_id"] is None
        assert made["sweep"]["amount"] == "2.00"
    assert comparable(told) == comparable(made)


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("withdraw", {"amount": "10.01"}, 422, "insufficient-funds"),
        ("fund", {"amount": "0"}, 422, "validation-error"),
        ("fund", {"amount": "1", "currency": "USD"}, 422, "currency-mismatch"),
        ("fund", {"amount": "1", "external_id": "taken"}, 409, "external-id-taken"),
        ("unfreeze", {"reason": "a test"}, 409, "wallet-not-frozen"),
        ("close", {"reason": "a test"}, 409, "wallet-not-empty"),
    ],
)
async def test_a_preview_is_refused_as_the_operation_is(
    client: AsyncClient, sql: Sql, new_wallet: NewWallet, path: str, body: Json, status: int, code: str
) -> None:
    wallet = await new_wallet()
    await client.post(f"/wallets/{wallet['id']}/fund", json={"amount": "10", "external_id": "taken"})
    target, before = f"/wallets/{wallet['id']}/{path}", await everything(sql)
    preview = await client.post(f"{target}?preview=true", json=body)
    assert await everything(sql) == before
    refused = await client.post(target, json=body)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert (preview.status_code, preview.content) == (refused.status_code, refused.content)
    assert preview.headers["content-type"] == "application/problem+json"


async def test_a_preview_takes_the_version_that_the_request_names(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    path = f"/wallets/{(await new_wallet(balance='1'))['id']}/fund?preview=true"
    told = await client.post(path, json={"amount": "1"}, headers={"If-Match": '"2"'})
    assert (told.json()["version"], told.json()["balance"]) == (3, "2.00")
    stale = await client.post(path, json={"amount": "1"}, headers={"If-Match": '"1"'})
    assert_problem(stale, 412, "version-mismatch")


async def test_a_preview_needs_no_key_and_claims_none(
    open_client: OpenClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    path = f"/wallets/{(await new_wallet())['id']}/fund"
    async with open_client(idempotency_key_required=True) as client:
        assert_problem(await client.post(path, json={"amount": "1"}), 400, "idempotency-key-required")
        assert (await client.post(f"{path}?preview=true", json={"amount": "1"})).status_code == 200
        key = {"Idempotency-Key": "k"}
        await client.post(f"{path}?preview=true", json={"amount": "1"}, headers=key)
        done = await client.post(path, json={"amount": "2"}, headers=key)
        assert (done.status_code, done.json()["balance"]) == (200, "2.00")
        # A key that has a reply is not replayed.
        told = await client.post(f"{path}?preview=true", json={"amount": "2"}, headers=key)
        assert (told.json()["preview"], told.json()["balance"]) == (True, "4.00")
        bad = await client.post(f"{path}?preview=true", json={"amount": "2"}, headers={"Idempotency-Key": "a b"})
        assert_problem(bad, 422, "validation-error")


async def test_what_is_neither_true_nor_false_is_refused(
    client: AsyncClient, sql: Sql, requests: dict[str, tuple[str, Json]], assert_problem: AssertProblem
) -> None:
    before = await everything(sql)
    queries = ["preview=", "preview=1", "preview=True", "preview=yes", "preview=true&preview=true", "preview"]
    for (path, body), query in product(requests.values(), queries):
        reply = await client.request(method_of(path), f"{path}?{query}", json=body, headers={"If-Match": "*"})
        problem = assert_problem(reply, 422, "validation-error")
        assert [error["field"] for error in problem["errors"]] == ["preview"]
    assert await everything(sql) == before


async def test_a_creation_has_no_preview_and_is_not_taken_for_one(
    client: AsyncClient, sql: Sql, assert_problem: AssertProblem
) -> None:
    refused = await client.post("/wallets?preview=true", json={"user_id": "ada", "currency": "EUR"})
    assert_problem(refused, 422, "validation-error")
    assert await sql("SELECT FROM wallet.wallets") == []


async def test_a_preview_waits_for_no_lock_and_takes_none(
    client: AsyncClient, new_wallet: NewWallet, database_url: str
) -> None:
    """It sees what is committed, and other requests go on beside it."""
    wallet, bob = await new_wallet(balance="5"), await new_wallet("bob")
    body = {"amount": "1", "to_wallet_id": bob["id"]}
    path = f"/wallets/{wallet['id']}/transfer"
    holder = await asyncpg.connect(database_url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("UPDATE wallet.wallets SET balance_minor = 1")
    told = await client.post(f"{path}?preview=true", json=body)
    await transaction.rollback()
    await holder.close()
    assert told.json()["balance"] == "4.00"
    sent = [client.post(f"{path}{query}", json=body) for _ in range(8) for query in ("", "?preview=true")]
    replies = await asyncio.gather(*sent)
    assert sorted(reply.status_code for reply in replies[::2]) == [200] * 5 + [422] * 3
    assert {reply.status_code for reply in replies[1::2]} <= {200, 422}
    assert (await client.get(f"/wallets/{wallet['id']}")).json()["balance"] == "0.00"
