"""What a client may rely on, over HTTP on the real PostgreSQL."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID, uuid4

import asyncpg
import pytest
from httpx import AsyncClient, Response

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
AssertProblem = Callable[[Response, int, str], Json]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]

WALLET_FIELDS = {
    "id",
    "user_id",
    "currency",
    "balance",
    "version",
    "status",
    "external_id",
    "metadata",
    "created_at",
    "updated_at",
}
ENTRY_FIELDS = {
    "transaction_id",
    "type",
    "wallet_id",
    "counterparty_wallet_id",
    "amount",
    "currency",
    "balance_after",
    "version",
    "reference",
    "metadata",
    "created_at",
}
MONEY_FIELDS = ENTRY_FIELDS - {"balance_after"} | {"balance"}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
JSON_HEADERS = {"Content-Type": "application/json"}
UNKNOWN = "0198c2a5-0000-7000-8000-000000000001"
METADATA = {
    "text": "Grüße, 李 😀 \u2028",
    "numbers": [0, -1, 1.5, 1e-7, 2**53 - 1, -0.1],
    "nested": {"a": [{"b": None}, True, [], {}]},
    "": "the empty key",
}


def is_now(timestamp: str) -> bool:
    moment = datetime.fromisoformat(timestamp)
    return bool(TIMESTAMP.fullmatch(timestamp)) and abs(datetime.now(moment.tzinfo) - moment) < timedelta(minutes=5)


# Creating


async def test_a_new_wallet_is_empty_active_at_version_1_and_found_at_its_location(client: AsyncClient) -> None:
    created = await client.post("/wallets", json={"user_id": "ada", "currency": "EUR", "external_id": "main"})
    assert created.status_code == 201
    wallet = created.json()
    assert wallet.keys() == WALLET_FIELDS
    assert UUID(wallet["id"]).version == 7
    assert is_now(wallet["created_at"])
    assert wallet == {
        "id": wallet["id"],
        "user_id": "ada",
        "currency": "EUR",
        "balance": "0.00",
        "version": 1,
        "status": "active",
        "external_id": "main",
        "metadata": {},
        "created_at": wallet["created_at"],
        "updated_at": wallet["created_at"],
    }
    assert created.headers["content-type"] == "application/json"
    assert created.headers["location"] == f"/wallets/{wallet['id']}"
    assert created.headers["etag"] == '"1"'
    read = await client.get(created.headers["location"])
    assert (read.status_code, read.json()) == (200, wallet)


@pytest.mark.parametrize(("currency", "zero"), [("JPY", "0"), ("EUR", "0.00"), ("BHD", "0.000"), ("CLF", "0.0000")])
async def test_a_balance_has_the_decimals_of_its_currency(
    new_wallet: NewWallet, currency: str, zero: str
) -> None:
    assert (await new_wallet(currency=currency))["balance"] == zero


async def test_metadata_comes_back_as_it_went_from_every_route(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet(metadata=METADATA)
    path = f"/wallets/{wallet['id']}"
    money = await client.post(f"{path}/fund", json={"amount": "1", "metadata": METADATA})
    listed = (await client.get("/users/ada/wallets")).json()["items"]
    entries = (await client.get(f"{path}/transactions")).json()["items"]
    replies = [wallet, (await client.get(path)).json(), money.json(), *listed, *entries]
    assert [reply["metadata"] for reply in replies] == [METADATA] * 5


async def test_deep_metadata_is_stored_and_read_again(client: AsyncClient) -> None:
    body = '{"user_id": "ada", "currency": "EUR", "metadata": ' + '{"a":' * 150 + "1" + "}" * 150 + "}"
    created = await client.post("/wallets", content=body, headers={**JSON_HEADERS, "Idempotency-Key": "deep"})
    assert created.status_code == 201
    assert (await client.get(created.headers["location"])).json() == created.json()


async def test_the_largest_body_is_taken(client: AsyncClient) -> None:
    body = json.dumps({"user_id": "ada", "currency": "EUR", "metadata": {"a": ""}})
    filled = body.replace('""', '"' + "x" * (64 * 1024 - len(body)) + '"')
    created = await client.post("/wallets", content=filled, headers={**JSON_HEADERS, "Idempotency-Key": "large"})
    assert (len(filled), created.status_code) == (64 * 1024, 201)


async def test_an_external_id_is_taken_once_for_each_user(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    first = await new_wallet("ada", external_id="main")
    await new_wallet("bob", external_id="main")
    again = await client.post("/wallets", json={"user_id": "ada", "currency": "USD", "external_id": "main"})
    assert assert_problem(again, 409, "external-id-taken")["wallet_id"] == first["id"]
    assert len((await client.get("/users/ada/wallets")).json()["items"]) == 1


# Moving money


async def test_funding_adds_to_the_balance_and_says_what_came_of_it(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet()
    body = {"amount": "50.5", "currency": "EUR", "reference": "salary", "metadata": {"month": 11}}
    funded = await client.post(f"/wallets/{wallet['id']}/fund", json=body)
    assert (funded.status_code, funded.headers["etag"]) == (200, '"2"')
    reply = funded.json()
    assert reply.keys() == MONEY_FIELDS
    assert UUID(reply.pop("transaction_id")).version == 7
    assert is_now(reply.pop("created_at"))
    assert reply == {
        "type": "FUND",
        "wallet_id": wallet["id"],
        "counterparty_wallet_id": None,
        "amount": "50.50",
        "currency": "EUR",
        "balance": "50.50",
        "version": 2,
        "reference": "salary",
        "metadata": {"month": 11},
    }


@pytest.mark.parametrize(
    ("currency", "amount", "balance"),
    [
        ("EUR", "0.1", "0.10"),
        ("EUR", "92233720368547758.07", "92233720368547758.07"),
        ("EUR", "90071992547409.93", "90071992547409.93"),
        ("EUR", "5.00", "5.00"),
        ("EUR", "5.000000", "5.00"),
        ("JPY", "5", "5"),
        ("BHD", "0.001", "0.001"),
    ],
)
async def test_a_json_number_is_worth_its_digits(
    client: AsyncClient, new_wallet: NewWallet, currency: str, amount: str, balance: str
) -> None:
    wallet = await new_wallet(currency=currency)
    path = f"/wallets/{wallet['id']}/fund"
    funded = await client.post(path, content=f'{{"amount": {amount}}}', headers=JSON_HEADERS)
    assert funded.json()["balance"] == balance


async def test_a_transfer_moves_money_and_tells_the_sender_nothing_of_the_receivers_wallet(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    ada, bob = await new_wallet("ada", balance="50"), await new_wallet("bob", balance="7")
    body = {"to_wallet_id": bob["id"], "amount": "30", "reference": "rent"}
    sent = await client.post(f"/wallets/{ada['id']}/transfer", json=body)
    assert (sent.status_code, sent.headers["etag"]) == (200, '"3"')
    reply = sent.json()
    assert reply.keys() == MONEY_FIELDS
    assert reply | {"type": "TRANSFER", "wallet_id": ada["id"], "counterparty_wallet_id": bob["id"]} == reply
    assert reply | {"amount": "30.00", "balance": "20.00", "version": 3, "reference": "rent"} == reply
    received = (await client.get(f"/wallets/{bob['id']}")).json()
    assert (received["balance"], received["version"]) == ("37.00", 3)
    assert received["updated_at"] == reply["created_at"]


async def test_the_ledger_has_both_sides_of_every_movement_at_once(client: AsyncClient, new_wallet: NewWallet) -> None:
    ada, bob = await new_wallet("ada", balance="50"), await new_wallet("bob")
    sent = (
        await client.post(
            f"/wallets/{ada['id']}/transfer",
            json={"to_wallet_id": bob["id"], "amount": "30", "reference": "rent", "metadata": {"a": 1}},
        )
    ).json()
    mine = (await client.get(f"/wallets/{ada['id']}/transactions")).json()
    theirs = (await client.get(f"/wallets/{bob['id']}/transactions")).json()
    assert mine.keys() == {"items", "next_cursor"}
    assert all(entry.keys() == ENTRY_FIELDS for entry in mine["items"] + theirs["items"])
    assert [(entry["amount"], entry["balance_after"], entry["version"]) for entry in mine["items"]] == [
        ("-30.00", "20.00", 3),
        ("50.00", "50.00", 2),
    ]
    (entry,) = theirs["items"]
    assert mine["items"][0] == {
        **{name: value for name, value in sent.items() if name != "balance"},
        "amount": "-30.00",
        "balance_after": "20.00",
    }
    assert entry == {
        **mine["items"][0],
        "wallet_id": bob["id"],
        "counterparty_wallet_id": ada["id"],
        "amount": "30.00",
        "balance_after": "30.00",
        "version": 2,
    }


async def test_every_change_leaves_one_event_with_the_requests_traceparent(
    client: AsyncClient, sql: Sql, new_wallet: NewWallet
) -> None:
    headers = {"traceparent": TRACEPARENT}
    created = await client.post("/wallets", json={"user_id": "ada", "currency": "EUR"}, headers=headers)
    ada, bob = created.json(), await new_wallet("bob")
    await client.post(f"/wallets/{ada['id']}/fund", json={"amount": "5"}, headers=headers)
    transfer = {"to_wallet_id": bob["id"], "amount": "2"}
    await client.post(f"/wallets/{ada['id']}/transfer", json=transfer, headers={"traceparent": "nonsense"})
    rows = await sql("SELECT event_type, aggregate_id::text, headers, payload FROM wallet.outbox ORDER BY id")
    events = [(row["event_type"], row["aggregate_id"], json.loads(row["headers"] or "null")) for row in rows]
    assert events == [
        ("WALLET_CREATED", ada["id"], headers),
        ("WALLET_CREATED", bob["id"], None),
        ("WALLET_FUNDED", ada["id"], headers),
        ("TRANSFER_DONE", ada["id"], None),
    ]
    payload = json.loads(rows[3]["payload"])
    touched = [(item["wallet_id"], item["user_id"], item["version"], item["balance_after"], item["direction"])
               for item in payload["wallets"]]
    assert touched == [(ada["id"], "ada", 3, "3.00", "out"), (bob["id"], "bob", 2, "2.00", "in")]


# Conditional requests


async def test_if_match_lets_only_the_named_version_be_changed(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    path = f"/wallets/{wallet['id']}/fund"
    for if_match, status in [('"1"', 200), ('"1"', 412), ('W/"2"', 412), ('"9", "2"', 200), ("*", 200), ('""', 412)]:
        response = await client.post(path, json={"amount": "1"}, headers={"If-Match": if_match})
        assert response.status_code == status, if_match
        if status == 412:
            assert_problem(response, 412, "version-mismatch")
    assert (await client.get(f"/wallets/{wallet['id']}")).json()["version"] == 4


async def test_a_transfer_with_a_stale_if_match_moves_nothing(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    ada, bob = await new_wallet("ada", balance="5"), await new_wallet("bob")
    body = {"to_wallet_id": bob["id"], "amount": "1"}
    path = f"/wallets/{ada['id']}/transfer"
    assert_problem(await client.post(path, json=body, headers={"If-Match": '"1"'}), 412, "version-mismatch")
    assert (await client.get(f"/wallets/{bob['id']}")).json() == bob
    assert (await client.post(path, json=body, headers={"If-Match": '"2"'})).status_code == 200


async def test_if_none_match_answers_304_until_the_wallet_changes(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet(balance="5")
    path = f"/wallets/{wallet['id']}"
    etag = (await client.get(path)).headers["etag"]
    assert etag == '"2"'
    for if_none_match in (etag, f"W/{etag}", f'"1", {etag}', "*"):
        same = await client.get(path, headers={"If-None-Match": if_none_match})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    await client.post(f"{path}/fund", json={"amount": "1"})
    changed = await client.get(path, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"3"')


# Lists


async def read_pages(client: AsyncClient, path: str, limit: int, order: str) -> list[list[Json]]:
    """Read all pages by their Link headers."""
    pages, target = [], f"{path}?limit={limit}&order={order}"
    while True:
        response = await client.get(target)
        assert response.status_code == 200, response.text
        page = response.json()
        pages.append(page["items"])
        if page["next_cursor"] is None:
            assert "link" not in response.headers
            return pages
        target, relation = re.fullmatch("<(.+)>; (.+)", response.headers["link"]).groups()  # type: ignore[union-attr]
        assert relation == 'rel="next"'
        assert quote(page["next_cursor"]) in target


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (100, [7])])
async def test_the_pages_of_a_ledger_are_complete_without_repeats_in_both_orders(
    client: AsyncClient, new_wallet: NewWallet, order: str, limit: int, sizes: list[int]
) -> None:
    wallet = await new_wallet()
    for _ in range(7):
        await client.post(f"/wallets/{wallet['id']}/fund", json={"amount": "1"})
    pages = await read_pages(client, f"/wallets/{wallet['id']}/transactions", limit, order)
    assert [len(page) for page in pages] == sizes
    versions = [entry["version"] for page in pages for entry in page]
    assert versions == (list(range(2, 9)) if order == "asc" else list(range(8, 1, -1)))


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("user_id", ["ada", "a/b", "a?b#c", "a%2Fb", "李", 'x">y', "wallets", "a/wallets", "+;@:&="])
async def test_the_pages_of_a_users_wallets_are_complete_whatever_the_user_is_called(
    client: AsyncClient, new_wallet: NewWallet, user_id: str, order: str
) -> None:
    made = [await new_wallet(user_id) for _ in range(5)]
    await new_wallet("somebody-else")
    pages = await read_pages(client, f"/users/{quote(user_id, safe='')}/wallets", 2, order)
    assert [len(page) for page in pages] == [2, 2, 1]
    found = [wallet for page in pages for wallet in page]
    assert found == (made if order == "asc" else made[::-1])


async def test_new_wallets_do_not_disturb_a_list_that_is_being_read(client: AsyncClient, new_wallet: NewWallet) -> None:
    made = [await new_wallet() for _ in range(4)]
    first = (await client.get("/users/ada/wallets?limit=2")).json()
    await new_wallet()
    second = (await client.get("/users/ada/wallets", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert first["items"] + second["items"] == made[::-1]
    assert second["next_cursor"] is None


async def test_lists_are_newest_first_and_fifty_long_unless_asked_otherwise(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql
) -> None:
    await new_wallet()
    await sql(
        "INSERT INTO wallet.wallets (id, user_id, currency)"
        " SELECT gen_random_uuid(), 'ada', 'EUR' FROM generate_series(1, 60)"
    )
    items = (await client.get("/users/ada/wallets")).json()["items"]
    assert len(items) == 50
    assert [item["id"] for item in items] == sorted((item["id"] for item in items), reverse=True)


async def test_a_user_without_wallets_has_an_empty_list(client: AsyncClient) -> None:
    response = await client.get("/users/nobody/wallets")
    assert (response.status_code, response.json()) == (200, {"items": [], "next_cursor": None})


async def test_a_wallet_without_movements_has_an_empty_ledger(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet()
    response = await client.get(f"/wallets/{wallet['id']}/transactions")
    assert (response.status_code, response.json()) == (200, {"items": [], "next_cursor": None})


# Refusals


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not-found"),
        ("GET", "/wallet", 404, "not-found"),
        ("GET", "/wallets/", 404, "not-found"),
        ("GET", f"/wallets/{UNKNOWN}/", 404, "not-found"),
        ("POST", f"/wallets/{UNKNOWN}/steal", 404, "not-found"),
        ("GET", "/users/ada", 404, "not-found"),
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
    ],
)
async def test_a_path_that_leads_nowhere_is_a_problem(
    client: AsyncClient, assert_problem: AssertProblem, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path, json={"amount": "1"} if method == "POST" else None)
    assert_problem(response, status, code)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("user_id", ["", "%20", "a%20b", "%00", "a" * 65, "%C2%A0", "%E2%80%8B", "%EF%BB%BF"])
async def test_a_user_id_that_nobody_can_have_is_refused_in_the_path_and_in_the_body(
    client: AsyncClient, assert_problem: AssertProblem, user_id: str
) -> None:
    listed = assert_problem(await client.get(f"/users/{user_id}/wallets"), 422, "validation-error")
    body = {"user_id": unquote(user_id), "currency": "EUR"}
    created = assert_problem(await client.post("/wallets", json=body), 422, "validation-error")
    for problem in (listed, created):
        assert problem["errors"] == [{"field": "user_id", "message": "must be 1 to 64 visible characters"}]


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
        pytest.param('{"amount":"１"}', 422, "validation-error", ["amount"], id="wide digit"),
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
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, sql: Sql
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
    for status in ("frozen", "closed"):
        await sql("UPDATE wallet.wallets SET status = $1 WHERE id = $2", status, UUID(bob["id"]))
        assert_problem(await transfer(ada["id"], bob["id"]), 409, f"wallet-{status}")
        assert_problem(await transfer(bob["id"], ada["id"]), 409, f"wallet-{status}")
        assert_problem(
            await client.post(f"/wallets/{bob['id']}/fund", json={"amount": "1"}), 409, f"wallet-{status}"
        )
        assert (await client.get(f"/wallets/{bob['id']}")).json()["status"] == status
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


async def test_a_server_that_wants_idempotency_keys_refuses_each_post_without_one(
    open_client: OpenClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet(balance="5")
    path = f"/wallets/{wallet['id']}"
    posts = [
        ("/wallets", {"user_id": "ada", "currency": "EUR"}),
        (f"{path}/fund", {"amount": "1"}),
        (f"{path}/transfer", {"amount": "1", "to_wallet_id": UNKNOWN}),
    ]
    async with open_client(idempotency_key_required=True) as strict:
        for target, body in posts:
            assert_problem(await strict.post(target, json=body), 422, "idempotency-key-required")
        assert (await strict.get(path)).json() == wallet
        keyed = await strict.post(f"{path}/fund", json={"amount": "1"}, headers={"Idempotency-Key": "k"})
        assert keyed.status_code == 200


# Running


async def test_a_live_and_ready_server_says_so(client: AsyncClient) -> None:
    assert (await client.get("/live")).json() == {"status": "live"}
    assert (await client.get("/ready")).json() == {"status": "ready", "checks": {"database": "ok"}}


async def test_the_metrics_count_operations_by_outcome_and_time_requests_by_route(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    wallet = await new_wallet(balance="5")
    body = {"amount": "9", "to_wallet_id": (await new_wallet("bob"))["id"]}
    await client.post(f"/wallets/{wallet['id']}/transfer", json=body)
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'wallet_operations_total{operation="fund",outcome="done"}' in response.text
    assert 'wallet_operations_total{operation="transfer",outcome="insufficient-funds"}' in response.text
    assert (
        'http_request_duration_seconds_count{method="POST",route="/wallets/{wallet_id}/transfer",status="422"}'
        in response.text
    )
    assert wallet["id"] not in response.text


async def test_the_openapi_document_is_served(client: AsyncClient) -> None:
    assert (await client.get("/openapi.json")).json()["info"]["title"] == "Wallet API"


async def test_without_its_database_the_server_lives_is_not_ready_and_answers_503(
    open_client: OpenClient, assert_problem: AssertProblem
) -> None:
    requests = [
        ("GET", f"/wallets/{UNKNOWN}", None),
        ("GET", "/users/ada/wallets", None),
        ("POST", "/wallets", {"user_id": "ada", "currency": "EUR"}),
        ("POST", f"/wallets/{UNKNOWN}/fund", {"amount": "1"}),
    ]
    async with open_client(database_url="postgresql://nobody@127.0.0.1:1/none") as lonely:
        assert (await lonely.get("/live")).status_code == 200
        ready = await lonely.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        for method, path, body in requests:
            response = await lonely.request(method, path, json=body)
            assert_problem(response, 503, "unavailable")
            assert response.headers["retry-after"] == "1"


async def test_connections_that_the_server_ended_are_answered_503_and_then_replaced(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    await sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'wallet-api'"
    )
    answers = [await client.get(f"/wallets/{wallet['id']}") for _ in range(3)]
    for answer in answers:
        if answer.status_code != 200:
            assert_problem(answer, 503, "unavailable")
    assert answers[-1].status_code == 200


async def test_requests_that_find_no_free_connection_are_answered_503(
    open_client: OpenClient, new_wallet: NewWallet, database_url: str, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    holder = await asyncpg.connect(database_url)
    async with open_client(database_pool_size=1, pool_timeout_seconds=0.1, lock_timeout_seconds=1) as small:
        async with holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets FOR UPDATE")
            path = f"/wallets/{wallet['id']}/fund"
            answers = await asyncio.gather(*(small.post(path, json={"amount": "1"}) for _ in range(4)))
        busy = [answer for answer in answers if answer.status_code == 409]
        assert len(busy) == 1
        for answer in set(answers) - set(busy):
            assert_problem(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "1"
    await holder.close()


async def test_a_statement_that_takes_too_long_is_answered_503(
    open_client: OpenClient,
    client: AsyncClient,
    new_wallet: NewWallet,
    database_url: str,
    assert_problem: AssertProblem,
) -> None:
    wallet = await new_wallet(balance="1")
    holder = await asyncpg.connect(database_url)
    async with open_client(statement_timeout_seconds=0.2, lock_timeout_seconds=10) as hasty, holder.transaction():
        await holder.execute("SELECT FROM wallet.wallets FOR UPDATE")
        for path, body in [("fund", {}), ("transfer", {"to_wallet_id": str(uuid4())})]:
            answer = await hasty.post(f"/wallets/{wallet['id']}/{path}", json={"amount": "1", **body})
            assert_problem(answer, 503, "unavailable")
    await holder.close()
    assert (await client.get(f"/wallets/{wallet['id']}")).json() == wallet


async def test_a_migration_that_adds_columns_breaks_no_running_server(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql
) -> None:
    wallet = await new_wallet(balance="5")
    path = f"/wallets/{wallet['id']}"
    reads = [path, f"{path}/transactions", "/users/ada/wallets"]
    before = [(await client.get(read)).json() for read in reads]
    for table in ("wallets", "wallet_transactions", "outbox", "idempotency_keys"):
        await sql(f"ALTER TABLE wallet.{table} ADD COLUMN colour text")
    assert [(await client.get(read)).json() for read in reads] == before
    assert (await client.post(f"{path}/fund", json={"amount": "1"})).status_code == 200
