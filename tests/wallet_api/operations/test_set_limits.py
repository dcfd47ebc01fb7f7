"""Limits: set and read, and what an overdraft limit and a ceiling allow."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from httpx import AsyncClient, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access.caller import ANONYMOUS
from support.limits import LIMITLESS, put_limits
from wallet_api.group_commit.transactions import execute
from wallet_api.operations.operation import Operation
from wallet_api.operations.set_limits import SetLimits
from wallet_api.operations.withdraw import Withdraw
from wallet_api.replies import DONE
from wallet_api.use_cases.use_cases import run_operations

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]
AssertPromisesKept = Callable[[], Awaitable[None]]

DAILY = {"id": "daily", "direction": "out", "window": "day", "amount": "20", "count": 3}


async def money(client: AsyncClient, wallet: Json) -> tuple[str, str, str]:
    read = (await client.get(f"/wallets/{wallet['id']}")).json()
    return read["balance"], read["held"], read["available"]


async def post(client: AsyncClient, wallet: Json, path: str, **body: Any) -> Response:
    return await client.post(f"/wallets/{wallet['id']}/{path}", json=body)


async def test_setting_limits_is_a_version_an_entry_and_an_event_and_replaces_all(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_promises_kept: AssertPromisesKept
) -> None:
    wallet = await new_wallet(balance="50")
    path = f"/wallets/{wallet['id']}/limits"
    before = await client.get(path)
    no_limits: Json = {"overdraft_limit": "0.00", "balance_max": None, "velocity": []}
    assert before.json() == {"wallet_id": wallet["id"], "currency": "EUR", "version": 2, **no_limits}
    body = {"overdraft_limit": "100", "balance_max": 10_000, "velocity": [DAILY], "reason": "a credit line"}
    done = await client.put(path, json=body, headers={"If-Match": before.headers["etag"]})
    reply = done.json()
    velocity = [{**DAILY, "amount": "20.00", "types": None}]
    told = {"overdraft_limit": "100.00", "balance_max": "10000.00", "reason": "a credit line", "velocity": velocity}
    assert (done.status_code, done.headers["etag"], reply["type"], reply["amount"]) == (200, '"3"', "LIMITS", None)
    assert {name: reply[name] for name in told} == told
    assert (reply["balance"], reply["available"]) == ("50.00", "150.00")
    (entry, *_) = (await client.get(f"/wallets/{wallet['id']}/transactions")).json()["items"]
    assert (entry["type"], entry["amount"], entry["version"]) == ("LIMITS", "0.00", 3)
    (event,) = await sql("SELECT payload::text FROM wallet.outbox WHERE event_type = 'WALLET_LIMITS_SET'")
    payload = json.loads(event[0])
    assert {name: payload[name] for name in told} == told
    assert payload["wallets"][0]["version"] == 3
    read = await client.get(path)
    (daily,) = read.json()["velocity"]
    assert (daily["used"], daily["remaining"], daily["used_count"], daily["remaining_count"]) == ("0.00", "20.00", 0, 3)
    assert daily["resets_at"].endswith("T00:00:00Z")
    await put_limits(client, wallet)
    assert {**(await client.get(path)).json(), "version": 2} == before.json()
    await assert_promises_kept()


async def test_if_match_is_required_and_must_be_the_present_version(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    path = f"/wallets/{(await new_wallet())['id']}/limits"
    key = {"Idempotency-Key": "k"}
    assert_problem(await client.put(path, json=LIMITLESS, headers=key), 428, "if-match-required")
    assert_problem(await client.put(path, json=LIMITLESS, headers={"If-Match": '"9"'}), 412, "version-mismatch")
    assert_problem(await client.put(path, json=LIMITLESS, headers={"If-Match": "9"}), 422, "validation-error")
    assert (await client.put(path, json=LIMITLESS, headers={"If-Match": "*"})).json()["version"] == 2
    # A repeated key has the first reply, whatever the version is by now.
    first = await client.put(path, json=LIMITLESS, headers={"If-Match": '"2"', **key})
    again = await client.put(path, json={**LIMITLESS, "overdraft_limit": 0.0}, headers={"If-Match": '"2"', **key})
    assert (first.status_code, again.content, again.headers["idempotent-replayed"]) == (200, first.content, "true")
    other = await client.put(path, json={**LIMITLESS, "overdraft_limit": "1"}, headers={"If-Match": '"3"', **key})
    assert_problem(other, 422, "idempotency-key-reused")


WRONG: dict[str, tuple[Json, str]] = {
    "no velocity": ({"overdraft_limit": "0", "balance_max": None}, "velocity"),
    "an overdraft limit below zero": ({"overdraft_limit": "-1"}, "overdraft_limit"),
    "a fraction of a cent": ({"balance_max": "0.001"}, "balance_max"),
    "eleven limits": ({"velocity": [{**DAILY, "id": str(number)} for number in range(11)]}, "velocity"),
    "an id twice": ({"velocity": [DAILY, DAILY]}, "velocity.1.id"),
    "an id that is no id": ({"velocity": [{**DAILY, "id": "a b"}]}, "velocity.0.id"),
    "neither amount nor count": ({"velocity": [{**DAILY, "amount": None, "count": None}]}, "velocity.0"),
    "an amount of zero": ({"velocity": [{**DAILY, "amount": "0"}]}, "velocity.0.amount"),
    "a count of zero": ({"velocity": [{**DAILY, "count": 0}]}, "velocity.0.count"),
    "a count of one transaction": ({"velocity": [{**DAILY, "window": "transaction"}]}, "velocity.0"),
    "another window": ({"velocity": [{**DAILY, "window": "year"}]}, "velocity.0.window"),
    "no types": ({"velocity": [{**DAILY, "types": []}]}, "velocity.0.types"),
    "a type twice": ({"velocity": [{**DAILY, "types": ["HOLD", "HOLD"]}]}, "velocity.0.types"),
    "a type of the other direction": ({"velocity": [{**DAILY, "types": ["FUND"]}]}, "velocity.0.types"),
    "a type that moves no money": ({"velocity": [{**DAILY, "types": ["FREEZE"]}]}, "velocity.0.types.0"),
}


async def test_limits_that_mean_nothing_are_refused_by_their_field(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    for name, (body, field) in WRONG.items():
        whole = body if name == "no velocity" else {**LIMITLESS, **body}
        refused = await client.put(f"/wallets/{wallet['id']}/limits", json=whole, headers={"If-Match": "*"})
        problem = assert_problem(refused, 422, "validation-error")
        assert (name, [error["field"] for error in problem["errors"]]) == (name, [field])
    assert (await client.get(f"/wallets/{wallet['id']}")).json()["version"] == 1


async def test_an_overdrawn_wallet_spends_and_reserves_down_to_its_limit_and_not_further(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, assert_promises_kept: AssertPromisesKept
) -> None:
    wallet, other = await new_wallet(balance="10"), await new_wallet("bob")
    await put_limits(client, wallet, overdraft_limit="30")
    assert await money(client, wallet) == ("10.00", "0.00", "40.00")
    assert (await post(client, wallet, "transfer", amount="15", to_wallet_id=other["id"])).status_code == 200
    assert (await post(client, wallet, "holds", amount="20")).status_code == 201
    assert await money(client, wallet) == ("-5.00", "20.00", "5.00")
    for path, body in {"withdraw": {}, "transfer": {"to_wallet_id": other["id"]}, "holds": {}}.items():
        refused = await post(client, wallet, path, amount="5.01", **body)
        assert "has 5.00 EUR available" in assert_problem(refused, 422, "insufficient-funds")["detail"]
    assert (await post(client, wallet, "withdraw", amount="5")).json()["balance"] == "-10.00"
    (entry, *_) = (await client.get(f"/wallets/{wallet['id']}/transactions")).json()["items"]
    assert entry["balance_after"] == "-10.00"
    read = await client.get(f"/wallets/{wallet['id']}/statement?from=2026-01-01T00:00:00Z&to=2099-01-01T00:00:00Z")
    assert read.status_code == 422
    assert (await client.get(f"/wallets/{wallet['id']}/balance")).json()["balance"] == "-10.00"
    assert_problem(await post(client, wallet, "close", reason="x"), 409, "wallet-not-empty")
    await assert_promises_kept()


async def test_a_hold_beyond_what_holds_can_reserve_in_all_is_refused_with_what_is_left(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    """More is available then: the balance and the overdraft limit together."""
    most = "92233720368547758.07"
    wallet = await new_wallet(balance=most)
    await put_limits(client, wallet, overdraft_limit=most)
    assert (await post(client, wallet, "holds", amount="92233720368547758.06")).status_code == 201
    problem = assert_problem(await post(client, wallet, "holds", amount="0.02"), 422, "insufficient-funds")
    assert (problem["available"], problem["needed"]) == ("0.01", "0.02")
    assert "can reserve 0.01 EUR more, less than 0.02" in problem["detail"]
    assert (await post(client, wallet, "holds", amount="0.01")).status_code == 201


async def test_a_limit_that_is_lowered_below_its_use_stops_new_spending_only(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, assert_promises_kept: AssertPromisesKept
) -> None:
    wallet, other = await new_wallet(), await new_wallet("bob")
    await put_limits(client, wallet, overdraft_limit="50")
    holds = [(await post(client, wallet, "holds", amount="10", capture_max="12")).headers["location"] for _ in "abc"]
    assert (await post(client, wallet, "withdraw", amount="15")).status_code == 200
    await put_limits(client, wallet)
    assert await money(client, wallet) == ("-15.00", "30.00", "-45.00")
    for path, body in {"withdraw": {}, "transfer": {"to_wallet_id": other["id"]}, "holds": {}}.items():
        assert_problem(await post(client, wallet, path, amount="0.01", **body), 422, "insufficient-funds")
    # What was reserved before may be captured, and not more; what is released is not spent.
    assert_problem(await client.post(f"{holds[0]}/capture", json={"amount": "10.01"}), 422, "insufficient-funds")
    assert (await client.post(f"{holds[0]}/capture", json={"amount": "6"})).status_code == 200
    assert (await client.post(f"{holds[1]}/void", json={})).status_code == 200
    assert (await post(client, wallet, "fund", amount="3")).status_code == 200
    assert (await post(client, wallet, "freeze", blocks="in", reason="x")).status_code == 200
    assert await money(client, wallet) == ("-18.00", "10.00", "-28.00")
    await assert_promises_kept()


async def test_the_database_refuses_what_the_limits_do_not_allow_whatever_the_code_does(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql
) -> None:
    wallet = await new_wallet(balance="10")
    await put_limits(client, wallet, overdraft_limit="5", balance_max="20")
    change = "UPDATE wallet.wallets SET {} WHERE id = $1"
    for wrong in ("balance_minor = -501", "held_minor = 1501", "balance_minor = 2001", "held_minor = -1"):
        with pytest.raises(asyncpg.CheckViolationError):
            await sql(change.format(wrong), UUID(wallet["id"]))
    await sql(change.format("balance_minor = -500"), UUID(wallet["id"]))
    await sql(change.format("overdraft_limit_minor = 0"), UUID(wallet["id"]))
    with pytest.raises(asyncpg.CheckViolationError):
        await sql(change.format("balance_minor = -501"), UUID(wallet["id"]))
    await sql(change.format("balance_minor = -499"), UUID(wallet["id"]))


async def test_a_wallet_receives_up_to_its_ceiling_and_a_stranger_learns_nothing_of_it(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet, other = await new_wallet(balance="15"), await new_wallet("bob", balance="50")
    await put_limits(client, wallet, balance_max="20")
    problem = assert_problem(await post(client, wallet, "fund", amount="5.01"), 422, "balance-limit-exceeded")
    assert (problem["balance_max"], problem["remaining"]) == ("20.00", "5.00")
    to_it = {"to_wallet_id": wallet["id"]}
    for path, body in {"transfer": to_it, "holds": to_it}.items():
        refused = await post(client, other, path, amount="5.01", **body)
        assert_problem(refused, 422, "balance-limit-exceeded")
    assert (await post(client, wallet, "fund", amount="5")).json()["balance"] == "20.00"
    await put_limits(client, wallet, balance_max="1")
    assert_problem(await post(client, wallet, "fund", amount="0.01"), 422, "balance-limit-exceeded")
    assert (await post(client, wallet, "withdraw", amount="1")).json()["balance"] == "19.00"


def a_command(operation: type[Operation], wallet: Json, **fields: Any) -> Operation:
    common: Json = {"path": "/x", "claim": None, "traceparent": None, "metadata": {}, "caller": ANONYMOUS}
    return operation(**common, wallet_id=UUID(wallet["id"]), reference=None, if_match=None, **fields)


async def test_in_one_batch_each_command_has_the_limits_that_the_ones_before_it_have_left(
    engine: AsyncEngine, client: AsyncClient, new_wallet: NewWallet, assert_promises_kept: AssertPromisesKept
) -> None:
    wallet = await new_wallet()

    def limit(amount: str) -> Operation:
        return a_command(SetLimits, wallet, **{**LIMITLESS, "overdraft_limit": amount, "reason": None})

    def withdraw(amount: str) -> Operation:
        return a_command(Withdraw, wallet, amount=amount, currency=None)

    commands = [withdraw("1"), limit("50"), withdraw("40"), withdraw("11"), limit("0"), withdraw("1")]
    replies = await execute(engine, run_operations, commands)
    short = "insufficient-funds"
    assert [reply.outcome for reply in replies] == [short, DONE, DONE, short, DONE, short]
    assert await money(client, wallet) == ("-40.00", "0.00", "-40.00")
    await assert_promises_kept()


async def test_a_closed_wallet_has_the_limits_that_it_had(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet()
    await put_limits(client, wallet, overdraft_limit="5")
    await post(client, wallet, "close", reason="x")
    refused = await client.put(f"/wallets/{wallet['id']}/limits", json=LIMITLESS, headers={"If-Match": "*"})
    assert_problem(refused, 409, "wallet-closed")
    await post(client, wallet, "reopen", reason="x")
    assert (await client.get(f"/wallets/{wallet['id']}/limits")).json()["overdraft_limit"] == "5.00"


async def test_an_overdrawn_wallet_with_overdue_holds_is_swept_and_closed_when_its_balance_allows(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_promises_kept: AssertPromisesKept
) -> None:
    """The overdraft limit covers what the holds reserve, so the sweep alone would not need their release."""
    wallet, other = await new_wallet(balance="10"), await new_wallet("bob")
    await put_limits(client, wallet, overdraft_limit="100")
    hold = (await post(client, wallet, "holds", amount="5")).json()["hold"]
    await sql("UPDATE wallet.holds SET expires_at = clock_timestamp() WHERE id = $1", UUID(hold["id"]))
    closed = await post(client, wallet, "close", reason="x", sweep_to_wallet_id=other["id"])
    assert (closed.status_code, closed.json()["sweep"]["amount"]) == (200, "10.00")
    assert (await client.get(f"/holds/{hold['id']}")).json()["status"] == "expired"
    await assert_promises_kept()


async def test_an_overdue_hold_keeps_no_wallet_open_whose_overdraft_limit_was_lowered(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_promises_kept: AssertPromisesKept
) -> None:
    """Nothing is available, and nothing would be."""
    wallet = await new_wallet()
    await put_limits(client, wallet, overdraft_limit="5")
    assert (await post(client, wallet, "holds", amount="5")).status_code == 201
    await put_limits(client, wallet)
    await sql("UPDATE wallet.holds SET expires_at = clock_timestamp() WHERE wallet_id = $1", UUID(wallet["id"]))
    assert (await post(client, wallet, "close", reason="left")).status_code == 200
    await assert_promises_kept()


async def test_limits_of_an_unknown_wallet_are_not_found(client: AsyncClient, assert_problem: AssertProblem) -> None:
    path = f"/wallets/{uuid4()}/limits"
    assert_problem(await client.get(path), 404, "wallet-not-found")
    assert_problem(await client.put(path, json=LIMITLESS, headers={"If-Match": "*"}), 404, "wallet-not-found")
