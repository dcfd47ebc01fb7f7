"""Every invalid request gets a problem document, and changes nothing."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import unquote
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from httpx import AsyncClient, Response
from sqlalchemy.engine import make_url

from common.tables.roles import Role
from support.applications import client_of
from support.roles import Roles
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
AssertProblem = Callable[[Response, int, str], Json]

JSON_HEADERS = {"Content-Type": "application/json"}
UNKNOWN = "0198c2a5-0000-7000-8000-000000000001"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database_url(postgres_url: str, template: str) -> AsyncIterator[str]:
    """One database for all of these tests: a refused request leaves nothing behind."""
    name = f"refusals_{uuid4().hex}"
    maintenance = await asyncpg.connect(postgres_url)
    await maintenance.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    await maintenance.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await maintenance.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(database_url: str, roles: Roles) -> AsyncIterator[AsyncClient]:
    url = roles.url(database_url, Role.API)
    app = create_app(WalletApiSettings(auth="none", database_url=url, log_level="warning"))
    async with client_of(app) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not-found"),
        ("GET", "/wallet", 404, "not-found"),
        ("GET", "/wallets/", 404, "not-found"),
        ("GET", f"/wallets/{UNKNOWN}/", 404, "not-found"),
        ("POST", f"/wallets/{UNKNOWN}/steal", 404, "not-found"),
        ("GET", "/users/ada", 404, "not-found"),
        ("GET", "/users/ada//wallets", 404, "not-found"),
        ("GET", "/users/ada/wallets/", 404, "not-found"),
        ("GET", "/users/ada/wallets%0A", 404, "not-found"),
        ("GET", "/users//ada/wallets", 404, "not-found"),
        ("GET", "/%00", 404, "not-found"),
        ("GET", "/users/a%0Ab/wallets", 404, "not-found"),
        ("GET", "/wallets", 405, "method-not-allowed"),
        ("DELETE", f"/wallets/{UNKNOWN}", 405, "method-not-allowed"),
        ("GET", f"/wallets/{UNKNOWN}/fund", 405, "method-not-allowed"),
        ("POST", f"/wallets/{UNKNOWN}/transactions", 405, "method-not-allowed"),
        ("PUT", "/users/ada/wallets", 405, "method-not-allowed"),
        ("POST", "/live", 405, "method-not-allowed"),
        ("GET", f"/wallets/{UNKNOWN}", 404, "wallet-not-found"),
        ("GET", f"/wallets/{UNKNOWN}/transactions", 404, "wallet-not-found"),
        ("GET", "/wallets/1", 422, "validation-error"),
        ("GET", "/wallets/%00", 422, "validation-error"),
        ("GET", f"/wallets/{UNKNOWN}0", 422, "validation-error"),
        ("POST", "/wallets/null/fund", 422, "validation-error"),
        ("POST", "/wallets/%E6%9D%8E/transfer", 422, "validation-error"),
        ("GET", "/wallets/x/transactions", 422, "validation-error"),
        *(
            (method, f"/wallets/{wallet_id}{path}", 422, "validation-error")
            for wallet_id in (UNKNOWN.replace("-", ""), f"%7B{UNKNOWN}%7D", f"urn:uuid:{UNKNOWN}", f"{UNKNOWN[:-1]}_")
            for method, path in (("GET", ""), ("GET", "/transactions"), ("POST", "/fund"), ("POST", "/transfer"))
        ),
    ],
)
async def test_a_path_that_leads_nowhere_is_a_problem(
    client: AsyncClient, assert_problem: AssertProblem, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path, json={"amount": "1"} if method == "POST" else None)
    assert_problem(response, status, code)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("user_id", ["", "%20", "a%20b", "%00", "a" * 65, "%C2%A0", "%E2%80%8B", "%EF%BB%BF"])
async def test_an_invalid_user_id_is_refused_in_the_path_and_in_the_body(
    client: AsyncClient, assert_problem: AssertProblem, user_id: str
) -> None:
    listed = assert_problem(await client.get(f"/users/{user_id}/wallets"), 422, "validation-error")
    body = {"user_id": unquote(user_id), "currency": "EUR"}
    created = assert_problem(await client.post("/wallets", json=body), 422, "validation-error")
    for problem in (listed, created):
        assert problem["errors"] == [{"field": "user_id", "message": "must be 1 to 64 visible characters"}]


@pytest.mark.parametrize("user_id", [".", "..", "ada/", "a/../b", "a\\..\\b", "e\u0301", "\u3164", "a\ufe0f"])
async def test_a_user_id_that_could_not_be_asked_for_or_told_apart_is_refused_in_the_body(
    client: AsyncClient, assert_problem: AssertProblem, user_id: str
) -> None:
    body = {"user_id": user_id, "currency": "EUR"}
    problem = assert_problem(await client.post("/wallets", json=body), 422, "validation-error")
    assert [error["field"] for error in problem["errors"]] == ["user_id"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=1.5", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("order=up", "order"),
        ("order=", "order"),
        ("order=DESC", "order"),
        ("cursor=x", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=%E6%9D%8E", "cursor"),
        ("cursor=W10", "cursor"),
        ("cursor=WzFlNDAwXQ", "cursor"),
        ("cursor=" + "a" * 1025, "cursor"),
    ],
)
@pytest.mark.parametrize("path", [f"/wallets/{UNKNOWN}/transactions", "/users/ada/wallets"])
async def test_a_page_that_cannot_be_is_refused_by_the_name_of_its_parameter(
    client: AsyncClient, assert_problem: AssertProblem, path: str, query: str, field: str
) -> None:
    problem = assert_problem(await client.get(f"{path}?{query}"), 422, "validation-error")
    assert [error["field"] for error in problem["errors"]] == [field]


async def test_a_cursor_of_one_list_is_refused_by_another(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    await new_wallet()
    cursor = (await client.get("/users/ada/wallets?limit=1")).json()["next_cursor"]
    response = await client.get(f"/wallets/{wallet['id']}/transactions", params={"cursor": cursor})
    assert_problem(response, 422, "validation-error")


DEEP = '{"amount":"1","metadata":' + '{"a":' * 5000 + "1" + "}" * 5000 + "}"


@pytest.mark.parametrize(
    ("body", "status", "code", "fields"),
    [
        pytest.param("", 400, "bad-request", None, id="empty"),
        pytest.param('{"amount"', 400, "bad-request", None, id="cut off"),
        pytest.param('{"amount":"1","amount":"2"}', 400, "bad-request", None, id="a key twice"),
        pytest.param('{"amount":NaN}', 400, "bad-request", None, id="NaN"),
        pytest.param(r'{"amount":"1","reference":"\ud800"}', 400, "bad-request", None, id="lone surrogate"),
        pytest.param(DEEP, 400, "bad-request", None, id="deep"),
        pytest.param("\x00", 400, "bad-request", None, id="NUL byte"),
        pytest.param("x" * 65537, 413, "content-too-large", None, id="large"),
        pytest.param("[]", 422, "validation-error", None, id="a list"),
        pytest.param("null", 422, "validation-error", None, id="null"),
        pytest.param("1", 422, "validation-error", None, id="a number"),
        pytest.param("{}", 422, "validation-error", ["amount"], id="no amount"),
        pytest.param('{"amount":""}', 422, "validation-error", ["amount"], id="blank amount"),
        pytest.param('{"amount":"0.00"}', 422, "validation-error", ["amount"], id="zero"),
        pytest.param('{"amount":"-1.00"}', 422, "validation-error", ["amount"], id="negative"),
        pytest.param('{"amount":-1}', 422, "validation-error", ["amount"], id="negative number"),
        pytest.param('{"amount":"1e2"}', 422, "validation-error", ["amount"], id="exponent"),
        pytest.param('{"amount":1e2}', 422, "validation-error", ["amount"], id="exponent number"),
        pytest.param('{"amount":"1.001"}', 422, "validation-error", ["amount"], id="decimals"),
        pytest.param('{"amount":1.001}', 422, "validation-error", ["amount"], id="decimals number"),
        pytest.param('{"amount":"NaN"}', 422, "validation-error", ["amount"], id="NaN string"),
        pytest.param('{"amount":"Infinity"}', 422, "validation-error", ["amount"], id="infinity string"),
        pytest.param('{"amount":true}', 422, "validation-error", ["amount"], id="boolean"),
        pytest.param('{"amount":' + "9" * 300 + "}", 422, "validation-error", ["amount"], id="300 digits"),
        pytest.param('{"amount":"' + "9" * 300 + '"}', 422, "validation-error", ["amount"], id="300 digits string"),
        pytest.param('{"amount":"92233720368547758.08"}', 422, "validation-error", ["amount"], id="a cent too many"),
        pytest.param('{"amount":"\uff11"}', 422, "validation-error", ["amount"], id="wide digit"),
        pytest.param('{"amount":"1\\u0000"}', 422, "validation-error", ["amount"], id="NUL in amount"),
        pytest.param('{"amount":"1","reference":"\\u0000"}', 422, "validation-error", ["reference"], id="NUL"),
        pytest.param('{"amount":"1","reference":""}', 422, "validation-error", ["reference"], id="blank reference"),
        pytest.param('{"amount":"1","currency":"XXX"}', 422, "validation-error", ["currency"], id="no currency"),
        pytest.param('{"amount":"1","metadata":null}', 422, "validation-error", ["metadata"], id="null metadata"),
        pytest.param('{"amount":"1","metadata":{"a":1e20}}', 422, "validation-error", ["metadata"], id="large float"),
        pytest.param(
            json.dumps({"amount": "1", "metadata": dict.fromkeys(map(str, range(51)))}),
            422,
            "validation-error",
            ["metadata"],
            id="51 keys",
        ),
        pytest.param('{"amount":"1","colour":1}', 422, "validation-error", ["colour"], id="unknown field"),
        pytest.param('{"Amount":"1"}', 422, "validation-error", ["Amount", "amount"], id="another field"),
        pytest.param('{"amount":"1","currency":"USD"}', 422, "currency-mismatch", None, id="other currency"),
    ],
)
async def test_a_body_that_cannot_be_is_refused_with_what_is_wrong_and_changes_nothing(
    client: AsyncClient,
    new_wallet: NewWallet,
    assert_problem: AssertProblem,
    body: str,
    status: int,
    code: str,
    fields: list[str] | None,
) -> None:
    wallet = await new_wallet()
    response = await client.post(f"/wallets/{wallet['id']}/fund", content=body, headers=JSON_HEADERS)
    problem = assert_problem(response, status, code)
    assert sorted(error["field"] for error in problem.get("errors", [])) == (fields or [])
    assert (await client.get(f"/wallets/{wallet['id']}")).json() == wallet


async def test_a_body_in_chunks_past_the_limit_is_refused_before_all_of_it_is_read(
    client: AsyncClient, assert_problem: AssertProblem
) -> None:
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1024
            yield b" " * 1024

    response = await client.post("/wallets", content=chunks(), headers=JSON_HEADERS)
    assert_problem(response, 413, "content-too-large")
    assert read <= 66 * 1024


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_of_another_type_is_refused(
    client: AsyncClient, assert_problem: AssertProblem, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    body = b'{"user_id": "ada", "currency": "EUR"}'
    assert_problem(await client.post("/wallets", content=body, headers=headers), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("If-Match", "3"),
        ("If-Match", ""),
        ("If-Match", '"3'),
        ("If-Match", "é"),
        ("Idempotency-Key", ""),
        ("Idempotency-Key", "a b"),
        ("Idempotency-Key", "é"),
        ("Idempotency-Key", "x" * 256),
    ],
)
async def test_a_header_that_cannot_be_is_refused_by_its_name(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, name: str, value: str
) -> None:
    wallet = await new_wallet()
    headers = {name.encode(): value.encode()}
    response = await client.post(f"/wallets/{wallet['id']}/fund", json={"amount": "1"}, headers=headers)
    problem = assert_problem(response, 422, "validation-error")
    assert [error["field"] for error in problem["errors"]] == [name]


async def test_money_is_refused_to_wallets_that_are_not_there_or_not_to_be_had(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, database_url: str
) -> None:
    ada, bob, usd = await new_wallet("ada", balance="5"), await new_wallet("bob"), await new_wallet(currency="USD")

    async def transfer(sender: str, receiver: str, amount: str = "1", **fields: str) -> Response:
        body = {"to_wallet_id": receiver, "amount": amount, **fields}
        return await client.post(f"/wallets/{sender}/transfer", json=body)

    missing = assert_problem(await transfer(ada["id"], UNKNOWN), 404, "wallet-not-found")
    assert missing["wallet_id"] == UNKNOWN
    assert missing["detail"].startswith("to_wallet_id:")
    assert_problem(await transfer(UNKNOWN, ada["id"]), 404, "wallet-not-found")
    assert_problem(await client.post(f"/wallets/{UNKNOWN}/fund", json={"amount": "1"}), 404, "wallet-not-found")
    assert_problem(await transfer(ada["id"], bob["id"], "5.01"), 422, "insufficient-funds")
    assert_problem(await transfer(ada["id"], ada["id"]), 422, "same-wallet")
    assert_problem(await transfer(ada["id"], usd["id"]), 422, "currency-mismatch")
    assert_problem(await transfer(ada["id"], bob["id"], currency="USD"), 422, "currency-mismatch")
    assert_problem(await transfer(ada["id"], "x"), 422, "validation-error")
    database = await asyncpg.connect(database_url)
    for status in ("frozen", "closed"):
        await database.execute("UPDATE wallet.wallets SET status = $1 WHERE id = $2", status, UUID(bob["id"]))
        assert_problem(await transfer(ada["id"], bob["id"]), 409, f"wallet-{status}")
        assert_problem(await transfer(bob["id"], ada["id"]), 409, f"wallet-{status}")
        assert_problem(await client.post(f"/wallets/{bob['id']}/fund", json={"amount": "1"}), 409, f"wallet-{status}")
        assert (await client.get(f"/wallets/{bob['id']}")).json()["status"] == status
    await database.close()
    assert (await client.get(f"/wallets/{ada['id']}")).json() == ada


async def test_a_wallet_that_is_full_takes_no_more(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    full = await new_wallet(balance="92233720368547758.07")
    more = await client.post(f"/wallets/{full['id']}/fund", json={"amount": "0.01"})
    assert_problem(more, 422, "balance-limit-exceeded")
    other = await new_wallet("bob", balance="1")
    sent = await client.post(f"/wallets/{other['id']}/transfer", json={"to_wallet_id": full["id"], "amount": "0.01"})
    assert_problem(sent, 422, "balance-limit-exceeded")
