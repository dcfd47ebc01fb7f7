"""Transactions by id, reference, idempotency key and wallet, and what a bound caller finds of them."""

from collections.abc import Awaitable, Callable
from itertools import product
from uuid import UUID, uuid4

import asyncpg
import pytest
from httpx import AsyncClient, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from support.callers import Headers, credentials
from support.lookups import ADA, ADMIN, BOB, EVE, Json, found, ids, move, pages_of
from support.plans import ledger_rows_read
from wallet_api.lookups import queries

AssertProblem = Callable[[Response, int, str], Json]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]


async def test_a_transaction_has_its_legs_and_what_the_movement_says(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    moved = await move(client, wallets["ada"], wallets["bob"], amount="30", reference="rent", metadata={"a": [1]})
    reply = await client.get(f"/transactions/{moved['transaction_id'].upper()}")
    assert reply.json() == {
        "transaction_id": moved["transaction_id"],
        "type": "TRANSFER",
        "currency": "EUR",
        "reference": "rent",
        "external_id": None,
        "batch_id": None,
        "metadata": {"a": [1]},
        "created_at": moved["created_at"],
        "details": None,
        "hold_id": None,
        "reverses": None,
        "reversed_by": [],
        "reversed": "0.00",
        "reversible": "30.00",
        "legs": [
            {
                "wallet_id": wallets["ada"],
                "counterparty_wallet_id": wallets["bob"],
                "amount": "-30.00",
                "held": "0.00",
                "balance_after": "70.00",
                "held_after": "0.00",
                "version": 3,
            },
            {
                "wallet_id": wallets["bob"],
                "counterparty_wallet_id": wallets["ada"],
                "amount": "30.00",
                "held": "0.00",
                "balance_after": "130.00",
                "held_after": "0.00",
                "version": 3,
            },
        ],
    }


async def test_the_other_side_of_a_fund_is_the_world_account(client: AsyncClient, wallets: dict[str, str]) -> None:
    moved = await move(client, wallets["ada"], amount="5", reference="cash")
    legs = (await client.get(f"/transactions/{moved['transaction_id']}")).json()["legs"]
    assert [(leg["wallet_id"], leg["amount"]) for leg in legs] == [(wallets["ada"], "5.00"), (None, "-5.00")]
    assert (legs[1]["balance_after"], legs[1]["version"]) == (None, None)


async def test_a_bound_caller_reads_the_legs_of_its_own_wallets_and_no_others(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    between = await move(client, wallets["ada"], wallets["bob"], reference="r")
    own = await move(client, wallets["ada"], wallets["second"], reference="r")
    fund = await move(client, wallets["ada"], reference="r")
    seen = {
        (caller["Authorization"], moved["transaction_id"]): [
            leg["wallet_id"]
            for leg in (await client.get(f"/transactions/{moved['transaction_id']}", headers=caller)).json()["legs"]
        ]
        for caller, moved in [(ADA, between), (BOB, between), (ADA, own), (ADA, fund), (ADMIN, fund)]
    }
    assert list(seen.values()) == [
        [wallets["ada"]],
        [wallets["bob"]],
        [wallets["ada"], wallets["second"]],
        [wallets["ada"]],
        [wallets["ada"], None],
    ]
    # The lists show the same items as the single transactions.
    for caller, query in product((ADA, BOB, ADMIN), ({"reference": "r"}, {"wallet_id": wallets["ada"]})):
        for item in (await found(client, caller, **query))["items"]:
            single = await client.get(f"/transactions/{item['transaction_id']}", headers=caller)
            assert single.json() == item


async def test_what_a_bound_caller_reads_of_a_transaction_is_what_its_ledger_tells(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    moved = await move(client, wallets["ada"], wallets["bob"], reference="r", metadata={"a": 1})
    (entry,) = (await client.get(f"/wallets/{wallets['bob']}/transactions?limit=1", headers=BOB)).json()["items"]
    transaction = (await client.get(f"/transactions/{moved['transaction_id']}", headers=BOB)).json()
    (leg,) = transaction.pop("legs")
    for name in ("batch_id", "details", "reversed_by", "reversed", "reversible"):
        del transaction[name]
    assert {**transaction, **leg} == entry


async def test_a_transaction_of_strangers_is_like_one_that_does_not_exist(
    client: AsyncClient, wallets: dict[str, str], assert_problem: AssertProblem
) -> None:
    moved = await move(client, wallets["ada"], wallets["bob"])
    unknown = str(uuid4())
    replies = []
    for transaction_id in (moved["transaction_id"], unknown):
        reply = await client.get(f"/transactions/{transaction_id}", headers=EVE)
        assert_problem(reply, 404, "transaction-not-found")
        replies.append((reply.content.replace(transaction_id.encode(), b"ID"), reply.headers.multi_items()))
    assert replies[0] == replies[1]


async def test_a_reference_finds_its_transactions_and_a_bound_caller_its_own(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    ada, second, bob = wallets.values()
    moved = [
        (await move(client, *sides, reference="rent"))["transaction_id"]
        for sides in [(ada, bob), (ada, second), (bob,), (bob, second), (bob, ada)]
    ]
    await move(client, ada, bob, reference="Rent")
    await move(client, ada, bob)
    newest = sorted(moved, reverse=True)
    assert ids(await found(client, reference="rent")) == newest
    assert ids(await found(client, reference="rent", order="asc")) == newest[::-1]
    assert ids(await found(client, ADA, reference="rent")) == [each for each in newest if each != moved[2]]
    assert ids(await found(client, BOB, reference="rent")) == [each for each in newest if each != moved[1]]
    assert await found(client, EVE, reference="rent") == {"items": [], "next_cursor": None}
    assert await found(client, reference="ren") == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("caller", [ADMIN, ADA])
async def test_the_pages_of_each_filter_are_complete_without_repeats(
    client: AsyncClient, wallets: dict[str, str], caller: Headers, order: str
) -> None:
    ada, second, bob = wallets.values()
    for number in range(7):
        await move(client, *[(ada, bob), (bob, ada), (ada, second), (ada,)][number % 4], reference="rent")
    for query in ({"reference": "rent"}, {"wallet_id": ada}):
        whole = await found(client, caller, order=order, **query)
        pages = await pages_of(client, caller, order=order, limit=3, **query)
        assert [len(page["items"]) for page in pages] == ([3, 3, 1] if "reference" in query else [3, 3, 2])
        assert [item for page in pages for item in page["items"]] == whole["items"]
        assert len(set(ids(whole))) == len(ids(whole))


async def test_a_wallets_transactions_are_in_the_order_of_its_versions(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    for number in range(4):
        await move(client, *[(wallets["ada"], wallets["bob"]), (wallets["bob"], wallets["ada"])][number % 2])
    page = await found(client, wallet_id=wallets["bob"])
    versions = [leg["version"] for item in page["items"] for leg in item["legs"] if leg["wallet_id"] == wallets["bob"]]
    assert versions == [6, 5, 4, 3, 2]


async def test_an_idempotency_key_finds_the_transaction_of_the_callers_own_request(
    client: AsyncClient, wallets: dict[str, str], sql: Sql
) -> None:
    key = {"Idempotency-Key": "order-4711"}
    moved = {
        name: (await move(client, wallets[name], headers={**caller, **key}))["transaction_id"]
        for name, caller in [("ada", ADA), ("bob", BOB)]
    }
    for name, caller in [("ada", ADA), ("bob", BOB)]:
        assert ids(await found(client, caller, idempotency_key="order-4711")) == [moved[name]]
        assert ids(await found(client, caller, idempotency_key="order-4711", order="asc", limit=1)) == [moved[name]]
    for caller in (ADMIN, EVE, credentials("another", "ada")):
        assert (await found(client, caller, idempotency_key="order-4711"))["items"] == []
    # A caller that is bound to another user by now.
    assert (await found(client, credentials("key-of-ada", "eve"), idempotency_key="order-4711"))["items"] == []
    await sql("DELETE FROM wallet.idempotency_keys")
    assert (await found(client, ADA, idempotency_key="order-4711"))["items"] == []


async def test_the_key_of_an_atomic_batch_finds_the_transactions_of_all_its_operations(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    funds = [{"op": "fund", "wallet_id": wallets["ada"], "amount": str(amount)} for amount in range(1, 5)]
    pay = {"op": "transfer", "wallet_id": wallets["ada"], "to_wallet_id": wallets["bob"], "amount": "10"}
    body = {"atomic": True, "operations": [*funds, pay]}
    sent = await client.post("/batches", json=body, headers={**ADA, "Idempotency-Key": "run-1"})
    assert sent.status_code == 200, sent.text
    made = [item["body"]["transaction_id"] for item in sent.json()["items"]]
    assert ids(await found(client, ADA, idempotency_key="run-1", order="asc")) == made
    pages = await pages_of(client, ADA, idempotency_key="run-1", limit=2)
    assert [ids(page) for page in pages] == [made[:2:-1], made[2:0:-1], made[:1]]
    assert (await found(client, BOB, idempotency_key="run-1"))["items"] == []


async def test_the_key_of_a_close_finds_its_sweep_too(client: AsyncClient, wallets: dict[str, str]) -> None:
    body = {"reason": "left", "sweep_to_wallet_id": wallets["ada"]}
    path, headers = f"/wallets/{wallets['second']}/close", {"Idempotency-Key": "close"}
    closed = (await client.post(path, json=body, headers=headers)).json()
    made = [closed["sweep"]["transaction_id"], closed["transaction_id"]]
    assert ids(await found(client, idempotency_key="close", order="asc")) == made


async def test_a_key_of_a_refusal_or_of_a_creation_finds_no_transaction(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    await client.post(f"/wallets/{wallets['ada']}/fund", json={"amount": "0"}, headers={"Idempotency-Key": "refused"})
    body = {"user_id": "ada", "currency": "EUR"}
    await client.post("/wallets", json=body, headers={"Idempotency-Key": "created"})
    for key in ("refused", "created", "unknown"):
        assert await found(client, idempotency_key=key) == {"items": [], "next_cursor": None}


async def test_a_search_has_exactly_one_filter(
    client: AsyncClient, wallets: dict[str, str], assert_problem: AssertProblem
) -> None:
    for query, field in [
        ({}, "reference"),
        ({"reference": "a", "idempotency_key": "b"}, "idempotency_key"),
        ({"reference": "a", "wallet_id": wallets["ada"]}, "wallet_id"),
        ({"reference": "a", "external_id": "b"}, "external_id"),
        ({"external_id": "a", "idempotency_key": "b"}, "idempotency_key"),
        ({"reference": "a", "external_id": "b", "wallet_id": wallets["ada"]}, "wallet_id"),
        ({"batch_id": wallets["ada"], "reference": "a"}, "batch_id"),
        ({"batch_id": wallets["ada"], "wallet_id": wallets["ada"]}, "wallet_id"),
        ({"batch_id": "x"}, "batch_id"),
        ({"metadata[a]": "b"}, "metadata"),
        ({"metadata[a]": "b", "reference": "a"}, "metadata"),
        ({"metadata[a]": "b", "reference": "a", "wallet_id": wallets["ada"]}, "metadata"),
        ({"metadata[a]": "b", "external_id": "a", "wallet_id": wallets["ada"]}, "metadata"),
        ({"external_id": ""}, "external_id"),
        ({"external_id": "a", "wallet_id": "x"}, "wallet_id"),
        ({"reference": ""}, "reference"),
        ({"reference": "a\0"}, "reference"),
        ({"reference": "a" * 256}, "reference"),
        ({"wallet_id": "x"}, "wallet_id"),
        ({"reference": "a", "cursor": "x"}, "cursor"),
    ]:
        problem = assert_problem(await client.get("/transactions", params=query), 422, "validation-error")
        assert [error["field"] for error in problem["errors"]] == [field]


async def test_a_cursor_is_of_one_filter_value_and_order(
    client: AsyncClient, wallets: dict[str, str], assert_problem: AssertProblem
) -> None:
    for _ in range(2):
        await move(client, wallets["ada"], wallets["bob"], reference="rent", metadata={"a": "b", "c": "b", "b": "a"})
        await move(client, wallets["ada"], wallets["bob"], reference=wallets["ada"])
    fund = {"op": "fund", "wallet_id": wallets["ada"], "amount": "1"}
    batch = (await client.post("/batches", json={"atomic": True, "operations": [fund] * 2})).json()["batch_id"]
    for name in ("ada", "bob"):
        await move(client, wallets[name], external_id="rent")
    lists = [
        ("/transactions", {**query, "order": order})
        for query in (
            {"reference": "rent"},
            {"reference": wallets["ada"]},
            {"external_id": "rent"},
            {"wallet_id": wallets["ada"]},
            {"wallet_id": wallets["bob"]},
            {"batch_id": batch},
            *(
                {"wallet_id": wallets["ada"], **members}
                for members in (
                    {"metadata[a]": "b"},
                    {"metadata[b]": "a"},
                    {"metadata[c]": "b"},
                    {"metadata[a]": "b", "metadata[c]": "b"},
                )
            ),
        )
        for order in ("asc", "desc")
    ]
    lists += [(f"/wallets/{wallets['ada']}/transactions", {"order": order}) for order in ("asc", "desc")]
    cursors = [(await client.get(path, params={**query, "limit": 1})).json()["next_cursor"] for path, query in lists]
    assert all(cursors)
    for (place, (path, query)), (number, cursor) in product(enumerate(lists), enumerate(cursors)):
        reply = await client.get(path, params={**query, "cursor": cursor, "limit": 7})
        if number == place:
            assert reply.status_code == 200
        else:
            problem = assert_problem(reply, 422, "validation-error")
            assert [error["field"] for error in problem["errors"]] == ["cursor"]


async def test_a_bound_callers_search_reads_no_entry_of_others_however_many_have_the_reference(
    client: AsyncClient, wallets: dict[str, str], engine: AsyncEngine, sql: Sql
) -> None:
    """An index of wallet and reference leads to its own, also before PostgreSQL has statistics."""
    own = await move(client, wallets["ada"], reference="rent")
    await sql(
        "INSERT INTO wallet.wallet_transactions (transaction_id, entry, wallet_id, wallet_version, type, amount_minor,"
        " currency, balance_after_minor, reference) SELECT id, entry, $1, number * 2 + entry + 2, 'TRANSFER',"
        " CASE entry WHEN 1 THEN 1 ELSE -1 END, 'EUR', 1, 'rent'"
        " FROM (SELECT gen_random_uuid() AS id, number FROM generate_series(1, 2000) AS number) AS ids,"
        " generate_series(1, 2) AS entry",
        UUID(wallets["bob"]),
    )
    async with engine.connect() as connection:
        for order, after in (("asc", UUID(int=0)), ("desc", UUID(int=2**128 - 1))):
            statement = queries.BY_REFERENCE_OF_USER[order]  # type: ignore[index]
            parameters = {"reference": "rent", "caller_user_id": "ada", "after": after, "limit": 51}
            ((explained,),) = await connection.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"), parameters)
            assert ledger_rows_read(explained[0]["Plan"]) < 10
    assert ids(await found(client, ADA, reference="rent")) == [own["transaction_id"]]


async def test_an_external_id_finds_the_transactions_of_the_wallets_that_acted_and_a_bound_caller_its_own(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    ada, second, bob = wallets.values()
    moved = {
        sides: (await move(client, *sides, external_id="order 1"))["transaction_id"]
        for sides in [(ada, bob), (second, ada), (bob, ada)]
    }
    await move(client, ada, bob, external_id="Order 1")
    of_ada, of_second, of_bob = moved.values()
    newest = [of_bob, of_second, of_ada]
    assert ids(await found(client, external_id="order 1")) == newest
    assert ids(await found(client, external_id="order 1", order="asc")) == newest[::-1]
    # The receiver doesn't find the sender's transaction, nor learn its external id.
    assert ids(await found(client, ADA, external_id="order 1")) == newest[1:]
    assert ids(await found(client, BOB, external_id="order 1")) == [of_bob]
    assert await found(client, EVE, external_id="order 1") == {"items": [], "next_cursor": None}
    for caller, seen in [(BOB, None), (ADA, "order 1"), (ADMIN, "order 1")]:
        read = (await client.get(f"/transactions/{of_ada}", headers=caller)).json()
        assert read["external_id"] == seen
    (entry,) = (await client.get(f"/wallets/{bob}/transactions?limit=1", headers=BOB)).json()["items"]
    assert (entry["transaction_id"] != of_bob, entry["external_id"]) == (True, None)
    pages = await pages_of(client, external_id="order 1", limit=2)
    assert [transaction for page in pages for transaction in ids(page)] == newest


async def test_an_external_id_and_a_wallet_find_the_one_transaction(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    ada, _, bob = wallets.values()
    of_ada = (await move(client, ada, bob, external_id="order 1"))["transaction_id"]
    of_bob = (await move(client, bob, ada, external_id="order 1"))["transaction_id"]
    for caller, wallet_id, seen in [
        (ADMIN, ada, [of_ada]),
        (ADMIN, bob, [of_bob]),
        (ADA, ada, [of_ada]),
        (ADA, bob, []),
        (EVE, ada, []),
        (ADMIN, str(uuid4()), []),
    ]:
        for order in ("asc", "desc"):
            page = await found(client, caller, external_id="order 1", wallet_id=wallet_id, order=order)
            assert (ids(page), page["next_cursor"]) == (seen, None)
    assert ids(await found(client, external_id="order 2", wallet_id=ada)) == []
