"""Batch requests: up to 100 operations, each with its own outcome, or all or none of them done."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient, Response
from prometheus_client import REGISTRY

from common import failpoints
from common.access.caller import FUNDS_WRITE, WALLETS_READ, WALLETS_WRITE
from common.failpoints import Failpoint
from support.callers import Headers, believe_callers, credentials
from support.limits import LIMITLESS
from wallet_api.batches.bodies import BATCHED
from wallet_api.batches.routes import BATCH_BYTES_MAX
from wallet_api.requests import BODY_BYTES_MAX

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]
Check = Callable[[], Awaitable[None]]
UntilBlocked = Callable[..., Awaitable[None]]

UNKNOWN = "0198c2a5-0000-7000-8000-000000000001"
WHY = {"reason": "a test"}
KINDS = pytest.mark.parametrize("atomic", [False, True])


async def send(client: AsyncClient, operations: list[Json], *, atomic: bool = False, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post("/batches", json={"atomic": atomic, "operations": operations}, headers=named)


async def items_of(client: AsyncClient, operations: list[Json], **how: Any) -> list[Json]:
    reply = await send(client, operations, **how)
    assert reply.status_code == (200 if how.get("atomic") else 207), reply.text
    items: list[Json] = reply.json()["items"]
    assert len(items) == len(operations)
    return items


def outcomes(items: list[Json]) -> list[Any]:
    return [item["problem"]["code"] if "problem" in item else item["status"] for item in items]


def a_transfer(sender: Json, receiver: Json, amount: str = "1", **fields: Any) -> Json:
    return {"op": "transfer", "wallet_id": sender["id"], "to_wallet_id": receiver["id"], "amount": amount, **fields}


def a_fund(wallet: Json, amount: str = "1", **fields: Any) -> Json:
    return {"op": "fund", "wallet_id": wallet["id"], "amount": amount, **fields}


async def place_hold(client: AsyncClient, wallet: Json, amount: str = "1", **fields: Any) -> str:
    placed = await client.post(f"/wallets/{wallet['id']}/holds", json={"amount": amount, **fields})
    return str(placed.json()["hold"]["id"])


async def state_of(sql: Sql) -> list[Any]:
    """Return all that an operation changes, but keys."""
    return [
        await sql("SELECT * FROM wallet.wallets ORDER BY id"),
        await sql("SELECT * FROM wallet.holds ORDER BY id"),
        await sql("SELECT count(*) FROM wallet.wallet_transactions"),
        await sql("SELECT count(*) FROM wallet.outbox"),
    ]


@pytest.fixture
async def one_of_each(client: AsyncClient, new_wallet: NewWallet) -> list[Json]:
    """An operation of each kind. None of them is refused, in this order."""
    ada, bob = await new_wallet("ada", balance="100"), await new_wallet("bob")
    frozen, closed, empty = await new_wallet(), await new_wallet(), await new_wallet()
    await client.post(f"/wallets/{frozen['id']}/freeze", json={"blocks": "all", **WHY})
    await client.post(f"/wallets/{closed['id']}/close", json=WHY)
    captured, voided = [await place_hold(client, ada, to_wallet_id=bob["id"]) for _ in range(2)]
    giver = await new_wallet()
    funded = await client.post(f"/wallets/{giver['id']}/fund", json={"amount": "5"})
    at_ada, to_bob = {"wallet_id": ada["id"]}, {"to_wallet_id": bob["id"]}
    return [
        {"op": "fund", **at_ada, "amount": 5, "reference": "é", "metadata": {"a": 1.5}},
        {"op": "withdraw", **at_ada, "amount": "5.00"},
        {"op": "transfer", **at_ada, **to_bob, "amount": "5", "currency": "EUR"},
        {"op": "split", **at_ada, "amount": "5", "legs": [{**to_bob, "amount": "rest"}]},
        {"op": "holds", **at_ada, **to_bob, "amount": "5", "capture_max": "6.0", "expires_in": 60},
        {"op": "capture", "hold_id": captured, "amount": "0.50", "final": False},
        {"op": "void", "hold_id": voided, "reason": "no show"},
        {"op": "freeze", **at_ada, "blocks": "in", **WHY},
        {"op": "unfreeze", "wallet_id": frozen["id"], **WHY},
        {"op": "close", "wallet_id": empty["id"], **WHY},
        {"op": "reopen", "wallet_id": closed["id"], **WHY},
        {"op": "reverse", "transaction_id": funded.json()["transaction_id"], "amount": "2", **WHY},
        {"op": "limits", "wallet_id": bob["id"], "if_match": 4, **LIMITLESS, "overdraft_limit": "5.0"},
    ]


def single(operation: Json) -> tuple[str, Json]:
    """Return the path and the body of the same request to the operation's own route."""
    kind = BATCHED[operation["op"]]
    id_field = f"{kind.collection[:-1]}_id"
    body = {name: value for name, value in operation.items() if name not in {"op", id_field, "key", "if_match"}}
    return kind.target_of(operation[id_field]), body


def method_of(operation: Json) -> str:
    return BATCHED[operation["op"]].method


@KINDS
async def test_a_batch_has_operations_of_any_kind_each_with_its_own_transaction_version_and_event(
    client: AsyncClient, one_of_each: list[Json], sql: Sql, assert_promises_kept: Check, atomic: bool
) -> None:
    assert {operation["op"] for operation in one_of_each} == BATCHED.keys()
    *_, before = await state_of(sql)
    items = await items_of(client, one_of_each, atomic=atomic)
    assert [item["status"] for item in items] == [BATCHED[operation["op"]].status for operation in one_of_each]
    bodies = [item["body"] for item in items]
    assert [body["type"] for body in bodies] == [BATCHED[item["op"]].transaction_type for item in one_of_each]
    assert len({body["transaction_id"] for body in bodies}) == len(bodies)
    # Most act on ada's wallet: each sees it as the one before leaves it.
    versions = [body["version"] for body in bodies if body["wallet_id"] == one_of_each[0]["wallet_id"]]
    assert versions == list(range(versions[0], versions[0] + 8))
    for item in items:
        assert item["headers"]["ETag"] == f'"{item["body"]["version"]}"'
    hold, reversal = [item for item in items if item["status"] == 201]
    assert hold["headers"]["Location"] == f"/holds/{hold['body']['hold']['id']}"
    assert reversal["headers"]["Location"] == f"/transactions/{reversal['body']['transaction_id']}"
    *_, after = await state_of(sql)
    assert after[0]["count"] == before[0]["count"] + len(items)
    await assert_promises_kept()


@KINDS
async def test_a_preview_of_a_batch_says_what_it_would_do_and_does_nothing(
    client: AsyncClient, one_of_each: list[Json], sql: Sql, atomic: bool
) -> None:
    """Each operation sees those before it: the last two would be refused alone."""
    ada = one_of_each[0]["wallet_id"]
    new = {"op": "unfreeze", "wallet_id": ada, **WHY}
    operations = [*one_of_each, new, {"op": "fund", "wallet_id": ada, "amount": "1"}]
    before = await state_of(sql)
    body = {"atomic": atomic, "operations": operations}
    preview = await client.post("/batches?preview=true", json=body)
    assert preview.status_code == (200 if atomic else 207), preview.text
    assert await state_of(sql) == before
    assert preview.json()["preview"] is True
    planned = preview.json()["items"]
    items = await items_of(client, operations, atomic=atomic)
    assert [item["body"]["transaction_id"] for item in planned] == [None] * len(items)
    for item, done in zip(planned, items, strict=True):
        assert (item["body"]["balance"], item["body"]["version"]) == (done["body"]["balance"], done["body"]["version"])


async def test_a_key_stands_for_the_same_request_in_a_batch_and_on_the_operations_own_route(
    client: AsyncClient, one_of_each: list[Json], sql: Sql
) -> None:
    """Whichever came first; refusals too."""
    refused: list[Json] = [
        {**operation, "amount": "1000000"} for operation in one_of_each if operation["op"] in {"withdraw", "holds"}
    ]
    operations = [{**operation, "key": f"k-{number}"} for number, operation in enumerate(one_of_each + refused)]
    singly, batched = operations[::2], operations[1::2]
    replies = {}
    for operation in singly:
        path, body = single(operation)
        headers = {"Idempotency-Key": operation["key"], "If-Match": "*"}
        replies[operation["key"]] = await client.request(method_of(operation), path, json=body, headers=headers)
    await items_of(client, batched)
    after = await state_of(sql)
    again = await items_of(client, operations)
    assert await state_of(sql) == after
    for operation, item in zip(operations, again, strict=True):
        assert item["headers"]["Idempotent-Replayed"] == "true"
        path, body = single(operation)
        send_alone = partial(
            client.request,
            method_of(operation),
            path,
            headers={"Idempotency-Key": operation["key"], "If-Match": "*"},
        )
        replayed = await send_alone(json=body)
        assert replayed.headers["idempotent-replayed"] == "true"
        assert (replayed.status_code, replayed.json()) == (item["status"], item.get("body") or item["problem"])
        if operation["key"] in replies:
            assert replayed.content == replies[operation["key"]].content
        other = await send_alone(json={**body, "reference": "else"})
        assert other.json()["code"] == "idempotency-key-reused"
    assert await state_of(sql) == after


@KINDS
async def test_limits_that_a_batch_sets_hold_for_the_operations_after_them_and_need_the_version(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, assert_promises_kept: Check, atomic: bool
) -> None:
    wallet = await new_wallet()
    set_limits = {"op": "limits", "wallet_id": wallet["id"], **LIMITLESS, "overdraft_limit": "5"}
    withdraw = {**a_fund(wallet, "5"), "op": "withdraw"}
    problem = assert_problem(await send(client, [set_limits], atomic=atomic), 422, "validation-error")
    assert [error["field"] for error in problem["errors"]] == ["operations.0.if_match"]
    operations = [{**set_limits, "if_match": 1}, withdraw, {**set_limits, "overdraft_limit": "0", "if_match": 3}]
    items = await items_of(client, operations, atomic=atomic)
    assert [item["body"]["balance"] for item in items] == ["0.00", "-5.00", "-5.00"]
    assert outcomes(await items_of(client, [{**set_limits, "if_match": 3}, withdraw])) == [
        "version-mismatch",
        "insufficient-funds",
    ]
    await assert_promises_kept()


async def test_each_operation_is_decided_by_itself_in_the_order_of_the_list(
    client: AsyncClient, new_wallet: NewWallet, assert_promises_kept: Check
) -> None:
    a, b, c = [await new_wallet(user) for user in ("ada", "bob", "cleo")]
    items = await items_of(
        client,
        [
            a_transfer(a, b, "5"),
            a_fund(a, "5", key="first"),
            a_transfer(a, b, "5", key="second"),
            a_transfer(a, b, "0.01", key="third"),
            a_transfer(b, {"id": UNKNOWN}),
            a_transfer(b, c, "1.001"),
            a_transfer(b, c, "3"),
        ],
    )
    assert outcomes(items) == [
        "insufficient-funds",
        200,
        200,
        "insufficient-funds",
        "wallet-not-found",
        "validation-error",
        200,
    ]
    assert [item["body"]["balance"] for item in items if "body" in item] == ["5.00", "0.00", "2.00"]
    assert [item["body"]["version"] for item in items if "body" in item] == [2, 3, 3]
    assert items[0]["problem"]["instance"] == f"/wallets/{a['id']}/transfer"
    # As in the reply of its own route: the fields are those of the operation.
    assert items[5]["problem"]["errors"][0]["field"] == "amount"
    assert items[4]["problem"]["wallet_id"] == UNKNOWN
    again = await client.post(
        f"/wallets/{a['id']}/transfer",
        json={"to_wallet_id": b["id"], "amount": "0.01"},
        headers={"Idempotency-Key": "third"},
    )
    assert (again.json(), again.headers["idempotent-replayed"]) == (items[3]["problem"], "true")
    await assert_promises_kept()


async def test_an_atomic_batch_does_all_or_nothing_and_names_the_first_operation_that_is_refused(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_problem: AssertProblem, assert_promises_kept: Check
) -> None:
    a, b = await new_wallet("ada", balance="10"), await new_wallet("bob", balance="1")
    hold = await place_hold(client, a, "2", to_wallet_id=b["id"])
    good = [a_fund(b), {"op": "capture", "hold_id": hold}, *[a_transfer(a, b)] * 5]
    before = await state_of(sql)
    for bad, status, code, field in [
        (a_transfer(a, b, "3.01"), 422, "insufficient-funds", "amount"),
        (a_transfer(a, b, "1.001"), 422, "validation-error", "amount"),
        (a_transfer(a, a), 422, "same-wallet", "to_wallet_id"),
        ({"op": "void", "hold_id": hold}, 409, "hold-not-open", "hold_id"),
        ({"op": "void", "hold_id": UNKNOWN}, 404, "hold-not-found", "hold_id"),
        (a_fund({"id": UNKNOWN}), 404, "wallet-not-found", "wallet_id"),
        ({**a_fund(a), "if_match": 99}, 412, "version-mismatch", "If-Match"),
    ]:
        problem = assert_problem(await send(client, [*good, bad, a_fund(b)], atomic=True), status, code)
        separator = ": " if field[0].isupper() else "."
        assert problem["detail"].startswith(f"operations.7{separator}{field}: ")
        assert problem["item"] == 7
        assert [error["field"] for error in problem.get("errors", [])] in ([], ["operations.7.amount"])
        assert await state_of(sql) == before
    assert await sql("SELECT FROM wallet.idempotency_keys") == []
    assert outcomes(await items_of(client, [*good, a_transfer(a, b, "3")], atomic=True)) == [200] * 8
    assert (await client.get(f"/wallets/{a['id']}")).json()["balance"] == "0.00"
    await assert_promises_kept()


async def test_an_external_id_twice_is_a_defect_of_an_atomic_batch_and_a_refusal_in_another_one(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_problem: AssertProblem
) -> None:
    """The refusal names the transaction that has the id. None has it if the whole batch is refused."""
    a, b = await new_wallet(), await new_wallet("bob")
    operations = [a_fund(a, external_id="x"), a_fund(b, external_id="x"), a_fund(a, "2", external_id="x")]
    before = await state_of(sql)
    problem = assert_problem(await send(client, operations, atomic=True), 422, "validation-error")
    assert problem["detail"] == "operations.2.external_id: is that of operations.0 too"
    assert await state_of(sql) == before
    items = await items_of(client, operations)
    assert outcomes(items) == [200, 200, "external-id-taken"]
    assert items[2]["problem"]["transaction_id"] == items[0]["body"]["transaction_id"]


async def test_a_preview_of_an_external_id_twice_names_no_transaction(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    """The preview makes none. An id that a transaction has is told with that transaction."""
    wallet = await new_wallet()
    (made,) = await items_of(client, [a_fund(wallet, external_id="old")])
    body = {"atomic": False, "operations": [a_fund(wallet, external_id=each) for each in ("new", "new", "old")]}
    told = (await client.post("/batches?preview=true", json=body)).json()["items"]
    assert outcomes(told) == [200, "external-id-taken", "external-id-taken"]
    assert [item["problem"]["transaction_id"] for item in told[1:]] == [None, made["body"]["transaction_id"]]
    assert told[1]["problem"]["detail"] == (
        f"external_id: an operation before this one takes new of wallet {wallet['id']}. Send another external_id."
    )


async def test_an_atomic_batch_sees_what_it_has_done_and_others_see_all_of_it_or_nothing(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql
) -> None:
    wallets = [await new_wallet(f"user-{number}", balance="1" if number == 0 else None) for number in range(20)]
    chain = [a_transfer(*pair) for pair in pairwise(wallets)]
    items = await items_of(client, chain, atomic=True)
    assert {item["body"]["balance"] for item in items} == {"0.00"}
    transactions = await sql("SELECT xmin::text, id FROM wallet.outbox ORDER BY id DESC LIMIT 19")
    assert len({row["xmin"] for row in transactions}) == 1
    assert (await client.get(f"/wallets/{wallets[-1]['id']}")).json()["balance"] == "1.00"


async def test_many_atomic_batches_at_once_lose_nothing(
    client: AsyncClient, new_wallet: NewWallet, assert_promises_kept: Check
) -> None:
    a, b = await new_wallet("ada", balance="10"), await new_wallet("bob", balance="10")
    batches = [[a_transfer(a, b, "3"), a_transfer(a, b, "1")], [a_transfer(b, a, "2"), a_fund(a)]] * 5
    replies = await asyncio.gather(*(send(client, batch, atomic=True) for batch in batches))
    assert {reply.status_code for reply in replies} <= {200, 422}
    to_b, to_a = (sum(reply.status_code == 200 for reply in replies[first::2]) for first in (0, 1))
    assert (await client.get(f"/wallets/{a['id']}")).json()["balance"] == f"{10 - 4 * to_b + 3 * to_a}.00"
    assert to_b >= 2
    await assert_promises_kept()


async def test_the_key_of_an_atomic_batch_gets_the_same_reply_again(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_problem: AssertProblem
) -> None:
    a, b = await new_wallet("ada", balance="10"), await new_wallet("bob")
    batch, too_much = [a_transfer(a, b, "4"), a_fund(b, "1.0")], [a_transfer(a, b, "4"), a_transfer(a, b, "9")]
    first = await send(client, batch, atomic=True, Idempotency_Key="k")
    refused = await send(client, too_much, atomic=True, Idempotency_Key="l")
    assert_problem(refused, 422, "insufficient-funds")
    after = await state_of(sql)
    respelled = [{**batch[0], "amount": 4.0, "wallet_id": a["id"].upper()}, {**batch[1], "amount": "1.00"}]
    for key, operations, reply in (("k", batch, first), ("k", respelled, first), ("l", too_much, refused)):
        again = await send(client, operations, atomic=True, Idempotency_Key=key)
        assert (again.status_code, again.content) == (reply.status_code, reply.content)
        assert again.headers["idempotent-replayed"] == "true"
    for operations in (batch[::-1], batch[:1], [*batch, batch[0]]):
        other = await send(client, operations, atomic=True, Idempotency_Key="k")
        assert_problem(other, 422, "idempotency-key-reused")
    transfer = await client.post(single(batch[0])[0], json=single(batch[0])[1], headers={"Idempotency-Key": "k"})
    assert_problem(transfer, 422, "idempotency-key-reused")
    assert await state_of(sql) == after


@KINDS
async def test_a_crash_before_the_commit_leaves_nothing_and_the_keys_unused(
    open_client: OpenClient, new_wallet: NewWallet, sql: Sql, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    a, b = await new_wallet("ada", balance="10"), await new_wallet("bob")
    keys = [{} if atomic else {"key": str(number)} for number in range(3)]
    batch = [{**a_transfer(a, b), **key} for key in keys]
    headers = {"Idempotency_Key": "k"} if atomic else {}
    before = await state_of(sql)
    async with open_client() as client:
        monkeypatch.setitem(failpoints._armed, "api.before_commit", Failpoint("error"))
        failed = await send(client, batch, atomic=atomic, **headers)
        codes = [failed.json()["code"]] if atomic else outcomes(failed.json()["items"])
        assert codes == ["internal-error"] * len(codes)
        assert await state_of(sql) == before
        monkeypatch.delitem(failpoints._armed, "api.before_commit")
        assert outcomes(await items_of(client, batch, atomic=atomic, **headers)) == [200] * 3


async def test_an_outcome_that_is_unknown_is_told_for_each_operation(
    open_client: OpenClient, new_wallet: NewWallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await new_wallet("ada", balance="10"), await new_wallet("bob")
    batch = [
        a_transfer(a, b, key="k"),
        a_transfer(a, {"id": UNKNOWN}),
        a_fund(b, key="l"),
        {"op": "void", "hold_id": UNKNOWN},
    ]
    async with open_client() as client:
        monkeypatch.setitem(failpoints._armed, "api.committed", Failpoint("error"))
        items = await items_of(client, batch)
        monkeypatch.delitem(failpoints._armed, "api.committed")
        assert outcomes(items) == ["unavailable", "unavailable", "unavailable", "hold-not-found"]
        assert items[0]["problem"]["detail"] == "The outcome is unknown. Retry with the same idempotency key."
        assert items[0]["headers"]["Retry-After"] == "1"
        again = await items_of(client, batch)
    assert outcomes(again) == [200, "wallet-not-found", 200, "hold-not-found"]
    assert [item["headers"].get("Idempotent-Replayed") for item in again] == ["true", None, "true", None]


@KINDS
async def test_a_batch_has_1_to_100_operations(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, sql: Sql, atomic: bool
) -> None:
    wallet = await new_wallet()
    before = await state_of(sql)
    for count in (0, 101):
        problem = assert_problem(await send(client, [a_fund(wallet)] * count, atomic=atomic), 422, "validation-error")
        assert [error["field"] for error in problem["errors"]] == ["operations"]
    assert await state_of(sql) == before
    items = await items_of(client, [a_fund(wallet)] * 100, atomic=atomic)
    assert [item["body"]["version"] for item in items] == list(range(2, 102))


@KINDS
async def test_a_field_that_is_wrong_is_named_with_its_operation_and_nothing_is_done(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, sql: Sql, atomic: bool
) -> None:
    wallet = await new_wallet(balance="9")
    before = await state_of(sql)
    good = a_fund(wallet)
    for bad, fields in [
        ({**good, "amount": None}, ["amount"]),
        ({"op": "fund"}, ["amount", "wallet_id"]),
        ({**good, "colour": "green"}, ["colour"]),
        ({**good, "hold_id": UNKNOWN}, ["hold_id"]),
        ({**good, "op": "mint"}, ["op"]),
        ({"wallet_id": wallet["id"]}, ["op"]),
        ({**good, "wallet_id": "x", "metadata": 3}, ["metadata", "wallet_id"]),
        ({**good, "key": "no spaces"}, ["key"]),
        ({**good, "key": ""}, ["key"]),
        ({**good, "if_match": "3"}, ["if_match"]),
        ({"op": "capture", "wallet_id": wallet["id"]}, ["hold_id", "wallet_id"]),
        ({"op": "split", "wallet_id": wallet["id"], "legs": [{"amount": "1"}]}, ["legs.0.to_wallet_id"]),
    ]:
        problem = assert_problem(await send(client, [good, bad], atomic=atomic), 422, "validation-error")
        assert sorted(error["field"] for error in problem["errors"]) == [f"operations.1.{field}" for field in fields]
    for body in (
        {},
        {"atomic": None, "operations": [good]},
        {"operations": [good]},
        {"atomic": atomic, "operations": 1},
    ):
        assert_problem(await client.post("/batches", json=body), 422, "validation-error")
    no_operations: list[Any] = [None, 3, "x", []]
    for entry in no_operations:
        problem = assert_problem(await send(client, [good, entry], atomic=atomic), 422, "validation-error")
        assert [error["field"] for error in problem["errors"]] == ["operations.1"]
    assert await state_of(sql) == before


async def test_a_key_belongs_to_an_operation_or_to_an_atomic_batch_and_is_there_once(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, sql: Sql
) -> None:
    wallet = await new_wallet()
    before = await state_of(sql)
    keyed = [a_fund(wallet), a_fund(wallet, key="k"), a_fund(wallet, "2", key="k")]
    for operations, atomic, headers, field in [
        (keyed, False, {}, "operations.2.key"),
        (keyed[:2], True, {}, "operations.1.key"),
        (keyed[:1], False, {"Idempotency_Key": "k"}, "Idempotency-Key"),
        (keyed[:1], True, {"Idempotency_Key": "no spaces"}, "Idempotency-Key"),
        (keyed[:1], True, {"If_Match": '"1"'}, "If-Match"),
    ]:
        refused = await send(client, operations, atomic=atomic, **headers)
        problem = assert_problem(refused, 422, "validation-error")
        assert [error["field"] for error in problem["errors"]] == [field]
    assert await state_of(sql) == before


async def test_a_server_that_requires_keys_requires_one_of_each_operation_or_one_of_an_atomic_batch(
    open_client: OpenClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    async with open_client(idempotency_key_required=True) as client:
        missing = await send(client, [a_fund(wallet, key="k"), a_fund(wallet)])
        problem = assert_problem(missing, 400, "idempotency-key-required")
        assert problem["detail"].startswith("operations.1.key: ")
        assert_problem(await send(client, [a_fund(wallet)], atomic=True), 400, "idempotency-key-required")
        assert outcomes(await items_of(client, [a_fund(wallet, key="k")])) == [200]
        assert outcomes(await items_of(client, [a_fund(wallet)], atomic=True, Idempotency_Key="l")) == [200]


@KINDS
async def test_a_batch_takes_captures_and_voids_and_its_holds_are_ordinary(
    client: AsyncClient, new_wallet: NewWallet, assert_promises_kept: Check, atomic: bool
) -> None:
    a, b = await new_wallet("ada", balance="10"), await new_wallet("bob")
    hold = {"op": "holds", "wallet_id": a["id"], "to_wallet_id": b["id"], "amount": "2"}
    placed = await items_of(client, [hold] * 5, atomic=atomic)
    ids = [item["body"]["hold"]["id"] for item in placed]
    assert (await client.get(f"/wallets/{a['id']}")).json()["available"] == "0.00"
    assert (await client.post(f"/holds/{ids[0]}/capture", json={})).status_code == 200
    assert (await client.get(f"/holds/{ids[1]}")).json()["status"] == "open"
    ends = [
        {"op": "capture", "hold_id": ids[1], "amount": "1", "final": False},
        {"op": "capture", "hold_id": ids[1]},
        *({"op": "void", "hold_id": hold_id} for hold_id in ids[2:]),
    ]
    assert outcomes(await items_of(client, ends, atomic=atomic)) == [200] * 5
    statuses = [(await client.get(f"/holds/{hold_id}")).json()["status"] for hold_id in ids]
    assert statuses == ["captured", "captured", "voided", "voided", "voided"]
    again = await items_of(client, ends)
    assert outcomes(again) == ["hold-not-open"] * 5
    assert (await client.get(f"/wallets/{b['id']}")).json()["balance"] == "4.00"
    await assert_promises_kept()


async def test_each_item_tells_its_outcome_not_only_those_that_failed(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    a, b = await new_wallet("ada", balance="2"), await new_wallet("bob")
    items = await items_of(client, [a_transfer(a, b, amount) for amount in ("1", "5", "1")])
    assert outcomes(items) == [200, "insufficient-funds", 200]
    for item in (items[0], items[2]):
        assert item.keys() == {"status", "body", "headers"}
        assert item["body"].keys() >= {"transaction_id", "wallet_id", "version", "balance"}
    assert items[1].keys() == {"status", "problem", "headers"}


async def test_an_operation_waits_for_the_version_that_it_names(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet()
    steps = [a_fund(wallet, if_match=version) for version in (1, 2, 2, 3)]
    assert outcomes(await items_of(client, steps)) == [200, 200, "version-mismatch", 200]


@pytest.fixture
async def bound_client(open_client: OpenClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    """A client whose requests name their callers."""
    believe_callers(monkeypatch)
    async with open_client(batch_lock_timeout_seconds=0.05, busy_retry_seconds=0.1) as client:
        client.headers.update(credentials("admin"))
        yield client


async def test_each_operation_needs_its_own_scope(bound_client: AsyncClient, assert_problem: AssertProblem) -> None:
    client = bound_client
    ada, bob = [
        (await client.post("/wallets", json={"user_id": user, "currency": "EUR"})).json() for user in ("ada", "bob")
    ]
    hold: Json = {"op": "holds", "wallet_id": ada["id"], "amount": "1"}
    batch = [
        a_fund(ada, "9"),
        a_transfer(ada, bob),
        hold,
        {**hold, "to_wallet_id": bob["id"]},
        {**a_fund(ada), "op": "withdraw"},
    ]
    freeze = {"op": "freeze", "wallet_id": ada["id"], "blocks": "all", **WHY}

    async def outcomes_for(*scopes: str) -> list[Any]:
        caller: Headers = {"Authorization": credentials("shop", "ada", scopes)["Authorization"]}
        items = await items_of(client, [*batch, freeze], **caller)
        return ["forbidden" if outcome == "forbidden" else "run" for outcome in outcomes(items)]

    no, yes = "forbidden", "run"
    assert await outcomes_for(FUNDS_WRITE) == [yes, no, no, no, yes, no]
    assert await outcomes_for(WALLETS_WRITE) == [no, yes, no, yes, no, no]
    assert await outcomes_for(FUNDS_WRITE, WALLETS_WRITE) == [yes, yes, yes, yes, yes, no]
    reader = credentials("shop", "ada", [WALLETS_READ])["Authorization"]
    assert_problem(await send(client, batch, Authorization=reader), 403, "forbidden")
    writer = credentials("shop", "ada", [WALLETS_WRITE])["Authorization"]
    problem = assert_problem(await send(client, batch[1:3], atomic=True, Authorization=writer), 403, "forbidden")
    assert problem["item"] == 1


@KINDS
async def test_a_strangers_wallet_or_hold_is_like_one_that_does_not_exist(
    bound_client: AsyncClient, atomic: bool, database_url: str
) -> None:
    """Locked by another transaction or not."""
    client = bound_client
    ada, bob = [
        (await client.post("/wallets", json={"user_id": user, "currency": "EUR"})).json() for user in ("ada", "bob")
    ]
    await client.post(f"/wallets/{bob['id']}/fund", json={"amount": "5"})
    hold = await place_hold(client, bob)
    caller: Headers = {"Authorization": credentials("key-of-ada", "ada")["Authorization"]}

    async def reply_about(wallet_id: str, hold_id: str) -> list[Any]:
        stranger, replies = {"id": wallet_id}, []
        for operation in (
            a_fund(stranger),
            a_transfer(stranger, ada),
            {**a_fund(stranger), "if_match": 9},
            {"op": "freeze", "wallet_id": wallet_id, "blocks": "in", **WHY},
            {"op": "void", "hold_id": hold_id},
            {"op": "capture", "hold_id": hold_id, "amount": "x"},
        ):
            reply = await send(client, [a_fund(ada), operation], atomic=atomic, **caller)
            told = json.loads(reply.content.replace(wallet_id.encode(), b"W").replace(hold_id.encode(), b"H"))
            replies.append(told["items"][1] if "items" in told else told)
        return replies

    unknown = await reply_about(UNKNOWN, UNKNOWN[:-1] + "2")
    codes = [reply["code"] if atomic else reply["problem"]["code"] for reply in unknown]
    assert codes == ["wallet-not-found"] * 4 + ["hold-not-found"] * 2
    assert await reply_about(bob["id"], hold) == unknown
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("SELECT FROM wallet.wallets WHERE user_id = 'bob' FOR UPDATE")
        assert await reply_about(bob["id"], hold) == unknown
    await holder.close()


async def test_an_operation_whose_wallet_is_locked_waits_and_only_those_after_it_that_share_a_wallet_wait_too(
    open_client: OpenClient,
    new_wallet: NewWallet,
    database_url: str,
    assert_promises_kept: Check,
    retries: Callable[[str], float],
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    a, b, c, d = [await new_wallet(user, balance="1") for user in ("ada", "bob", "cleo", "dian")]
    holder = await asyncpg.connect(database_url)
    before = retries("wallet-busy")
    # Neither would be done before the first one is: bob has too little, and then cleo.
    batch = [a_transfer(a, b), a_transfer(b, c, "2"), a_transfer(c, a, "3"), a_transfer(d, {"id": UNKNOWN}), a_fund(d)]
    async with open_client(batch_lock_timeout_seconds=0.05, busy_retry_seconds=30) as client:
        async with holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets WHERE user_id = 'ada' FOR UPDATE")
            sent = asyncio.create_task(send(client, batch))

            async def others_are_done() -> bool:
                read = await client.get(f"/wallets/{d['id']}")
                return bool(read.json()["balance"] == "2.00") and retries("wallet-busy") >= before + 3

            await eventually(others_are_done)
            assert not sent.done()
        items = (await sent).json()["items"]
    assert outcomes(items) == [200, 200, 200, "wallet-not-found", 200]
    assert [item["body"]["balance"] for item in items if "body" in item] == ["0.00", "0.00", "0.00", "2.00"]
    await holder.close()
    await assert_promises_kept()


async def test_the_largest_batches_fit_and_a_larger_body_is_refused(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    payer = await new_wallet(balance="9000000")
    receivers = [(await new_wallet(f"user-{number}"))["id"] for number in range(20)]
    legs = [{"to_wallet_id": receiver, "amount": "1000.00"} for receiver in receivers]
    split: Json = {"op": "split", "wallet_id": payer["id"], "legs": legs, "reference": "é" * 255, "key": "k" * 250}
    splits = [{**split, "key": f"{split['key']}-{number}"} for number in range(100)]
    assert len(json.dumps(splits)) > BODY_BYTES_MAX
    assert outcomes(await items_of(client, splits)) == [200] * 100
    large = [{**a_fund(payer), "metadata": {"text": "x" * (BATCH_BYTES_MAX // 100)}}] * 100
    problem = assert_problem(await send(client, large), 413, "content-too-large")
    assert str(BATCH_BYTES_MAX) in problem["detail"]


async def test_a_batch_that_finds_no_room_is_refused_as_a_whole_and_nothing_is_done(
    open_client: OpenClient,
    new_wallet: NewWallet,
    assert_problem: AssertProblem,
    database_url: str,
    patient: Json,
    until_blocked: UntilBlocked,
) -> None:
    wallet = await new_wallet()
    holder = await asyncpg.connect(database_url)
    async with open_client(**patient, queue_batch_operations_max=150) as client:
        async with holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets FOR UPDATE")
            # The first is taken off the queue, and waits for the lock.
            withdrawal = {"op": "withdraw", "wallet_id": wallet["id"], "amount": "1"}
            running = asyncio.create_task(send(client, [withdrawal] * 100))
            await until_blocked()
            waiting = asyncio.create_task(send(client, [a_fund(wallet)] * 100))
            await asyncio.sleep(0)
            refused = [
                await send(client, [a_fund(wallet)] * count, atomic=atomic)
                for count in (51, 100)
                for atomic in (False, True)
            ]
            single_fund = asyncio.create_task(client.post(f"/wallets/{wallet['id']}/fund", json={"amount": "1"}))
        for reply in refused:
            assert_problem(reply, 503, "unavailable")
        assert outcomes((await running).json()["items"]) == ["insufficient-funds"] * 100
        assert outcomes((await waiting).json()["items"]) == [200] * 100
        assert (await single_fund).status_code == 200
        assert (await client.get(f"/wallets/{wallet['id']}")).json()["version"] == 102
    await holder.close()


async def test_operations_of_batches_are_counted_like_single_ones(client: AsyncClient, new_wallet: NewWallet) -> None:
    def count(operation: str, outcome: str) -> float:
        labels = {"operation": operation, "outcome": outcome}
        return REGISTRY.get_sample_value("wallet_operations_total", labels) or 0

    a, b = await new_wallet("ada", balance="2"), await new_wallet("bob")
    labels = [
        ("transfer", "done"),
        ("transfer", "insufficient-funds"),
        ("fund", "done"),
        ("batch", "done"),
        ("batch", "insufficient-funds"),
    ]
    before = [count(*each) for each in labels]
    batch = [a_transfer(a, b), a_transfer(a, b, "2"), a_fund(a), a_fund(b)]
    await items_of(client, batch)
    await items_of(client, batch[2:], atomic=True)
    await send(client, [*batch[2:], a_transfer(a, b, "99")], atomic=True)
    assert [count(*each) - old for each, old in zip(labels, before, strict=True)] == [1, 1, 4, 1, 1]
