"""What a client may rely on, over HTTP on the real PostgreSQL."""

import json
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import asyncpg
import pytest
from httpx import AsyncClient, Response

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
AssertProblem = Callable[[Response, int, str], Json]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]

WALLET_FIELDS = {
    "id",
    "user_id",
    "currency",
    "balance",
    "held",
    "available",
    "version",
    "status",
    "blocks",
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
    "held",
    "held_after",
    "hold_id",
    "reverses",
    "version",
    "reference",
    "external_id",
    "metadata",
    "created_at",
}
MONEY_FIELDS = ENTRY_FIELDS - {"balance_after", "held_after", "hold_id", "reverses"} | {"balance", "available"}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
JSON_HEADERS = {"Content-Type": "application/json"}
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
        "held": "0.00",
        "available": "0.00",
        "version": 1,
        "status": "active",
        "blocks": None,
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
async def test_a_balance_has_the_decimals_of_its_currency(new_wallet: NewWallet, currency: str, zero: str) -> None:
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
        "held": "0.00",
        "available": "50.50",
        "version": 2,
        "reference": "salary",
        "external_id": None,
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
        **{name: value for name, value in sent.items() if name not in {"balance", "available"}},
        "amount": "-30.00",
        "balance_after": "20.00",
        "held_after": "0.00",
        "hold_id": None,
        "reverses": None,
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
    touched = [
        (item["wallet_id"], item["user_id"], item["version"], item["balance_after"], item["direction"])
        for item in payload["wallets"]
    ]
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
            problem = assert_problem(response, 412, "version-mismatch")
            assert f'"{problem["version"]}"' != if_match
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


async def test_a_cursor_is_of_one_list_and_order(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallets = [await new_wallet(user_id, balance="1") for user_id in ("ada", "bob", "ada", "bob")]
    for wallet in wallets:
        await client.post(f"/wallets/{wallet['id']}/fund", json={"amount": "1"})
    paths = [
        *(f"/wallets/{wallet['id']}/transactions" for wallet in wallets),
        "/users/ada/wallets",
        "/users/bob/wallets",
    ]
    lists = [(path, order) for path in paths for order in ("asc", "desc")]
    cursors = [
        (await client.get(path, params={"order": order, "limit": 1})).json()["next_cursor"] for path, order in lists
    ]
    for place, (path, order) in enumerate(lists):
        for cursor_of, cursor in enumerate(cursors):
            reply = await client.get(path, params={"order": order, "cursor": cursor, "limit": 7})
            if cursor_of == place:
                assert (reply.status_code, len(reply.json()["items"])) == (200, 1)
            else:
                problem = assert_problem(reply, 422, "validation-error")
                assert [error["field"] for error in problem["errors"]] == ["cursor"]


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
