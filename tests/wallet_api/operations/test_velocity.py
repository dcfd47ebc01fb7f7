"""Velocity limits: what is used of them, what they refuse, and that they hold whatever happens at once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from httpx import AsyncClient, Response

from support.callers import believe_callers, credentials
from support.limits import put_limits

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]
AssertPromisesKept = Callable[[], Awaitable[None]]
UntilBlocked = Callable[..., Awaitable[None]]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]

OUT: Json = {"id": "out", "direction": "out", "window": "day", "amount": "100.00"}
IN: Json = {"id": "in", "direction": "in", "window": "month", "amount": "100.00"}


async def post(client: AsyncClient, wallet: Json, path: str, **body: Any) -> Response:
    return await client.post(f"/wallets/{wallet['id']}/{path}", json=body)


async def used(client: AsyncClient, wallet: Json) -> dict[str, tuple[str, int]]:
    """Return what is used of each limit, by its id."""
    read = (await client.get(f"/wallets/{wallet['id']}/limits")).json()
    return {limit["id"]: (limit["used"], limit["used_count"]) for limit in read["velocity"]}


async def test_each_operation_counts_in_its_direction_and_by_its_type(
    client: AsyncClient, new_wallet: NewWallet, assert_promises_kept: AssertPromisesKept
) -> None:
    wallet, other = await new_wallet(balance="50"), await new_wallet("bob", balance="50")
    limits = [
        OUT,
        {**OUT, "id": "out-by-hold", "types": ["HOLD"], "window": "week"},
        {**OUT, "id": "out-by-payment", "types": ["TRANSFER", "SPLIT"], "window": "month", "amount": None, "count": 9},
        IN,
        {**IN, "id": "in-by-capture", "types": ["CAPTURE"]},
        {**OUT, "id": "each", "window": "transaction"},
    ]
    await put_limits(client, wallet, velocity=limits)
    own, others = {"to_wallet_id": wallet["id"]}, {"to_wallet_id": other["id"]}
    await post(client, wallet, "fund", amount="1")
    await post(client, wallet, "withdraw", amount="2")
    await post(client, wallet, "transfer", amount="3", **others)
    await post(client, wallet, "split", legs=[{"amount": "4", **others}])
    await post(client, wallet, "holds", amount="5")
    await post(client, other, "transfer", amount="10", **own)
    await post(client, other, "split", legs=[{"amount": "20", **own}])
    hold = (await post(client, other, "holds", amount="7", **own)).headers["location"]
    # It counts when it comes in, not when it is reserved.
    assert (await used(client, wallet))["in"] == ("31.00", 3)
    assert (await client.post(f"{hold}/capture", json={})).status_code == 200
    assert await used(client, wallet) == {
        "out": ("14.00", 4),
        "out-by-hold": ("5.00", 1),
        "out-by-payment": ("7.00", 2),
        "in": ("38.00", 4),
        "in-by-capture": ("7.00", 1),
        "each": ("0.00", 0),
    }
    await assert_promises_kept()


async def test_what_a_limit_refuses_says_what_is_used_and_what_remains_and_counts_nothing(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, assert_promises_kept: AssertPromisesKept
) -> None:
    wallet, other = await new_wallet(balance="500"), await new_wallet("bob", balance="500")
    each = {"id": "each", "direction": "out", "window": "transaction", "amount": "60"}
    await put_limits(client, wallet, velocity=[{**OUT, "count": 2}, IN, each])
    others = {"to_wallet_id": other["id"]}
    problem = assert_problem(await post(client, wallet, "withdraw", amount="60.01"), 422, "limit-exceeded")
    names = ("limit_id", "window", "used", "remaining", "used_count", "remaining_count", "resets_at")
    assert [problem[name] for name in names] == ["each", "transaction", "0.00", "60.00", 0, None, None]
    await post(client, wallet, "transfer", amount="60", **others)
    for path, body in {"withdraw": {}, "transfer": others, "holds": {}}.items():
        problem = assert_problem(await post(client, wallet, path, amount="40.01", **body), 422, "limit-exceeded")
        assert [problem[name] for name in names[:-1]] == ["out", "day", "60.00", "40.00", 1, 1]
        assert problem["resets_at"].endswith("T00:00:00Z")
    legs = [{"amount": "40.01", **others}]
    assert_problem(await post(client, wallet, "split", legs=legs), 422, "limit-exceeded")
    assert_problem(await post(client, wallet, "fund", amount="100.01"), 422, "limit-exceeded")
    # The sender's own reasons come first; without funds nothing is counted either.
    assert_problem(await post(client, wallet, "withdraw", amount="1000"), 422, "insufficient-funds")
    assert await used(client, wallet) == {"out": ("60.00", 1), "in": ("0.00", 0), "each": ("0.00", 0)}
    await post(client, wallet, "withdraw", amount="1")
    problem = assert_problem(await post(client, wallet, "withdraw", amount="1"), 422, "limit-exceeded")
    assert (problem["used_count"], problem["remaining_count"], problem["remaining"]) == (2, 0, "39.00")
    await assert_promises_kept()


async def test_a_hold_counts_once_and_gives_back_what_is_never_captured(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet(balance="500")
    await put_limits(client, wallet, velocity=[{**OUT, "count": 9}])
    holds = [(await post(client, wallet, "holds", amount="20", capture_max="30")).headers["location"] for _ in "abcd"]
    assert await used(client, wallet) == {"out": ("80.00", 4)}
    await client.post(f"{holds[0]}/void", json={})
    assert await used(client, wallet) == {"out": ("60.00", 3)}
    await client.post(f"{holds[1]}/capture", json={"amount": "5"})
    assert await used(client, wallet) == {"out": ("45.00", 3)}
    await client.post(f"{holds[2]}/capture", json={"amount": "30"})
    assert await used(client, wallet) == {"out": ("55.00", 3)}
    await put_limits(client, wallet, velocity=[{**OUT, "amount": "60", "count": 3}])
    too_much = await client.post(f"{holds[3]}/capture", json={"amount": "25.01"})
    assert_problem(too_much, 422, "limit-exceeded")
    await sql("UPDATE wallet.holds SET expires_at = clock_timestamp() WHERE status = 'open'")
    # Short of funds but for the overdue hold, which it releases first. A limit without use left refuses all the same.
    assert_problem(await post(client, wallet, "withdraw", amount="446"), 422, "limit-exceeded")


@pytest.mark.parametrize("operation", ["withdraw", "transfer", "split", "holds", "capture"])
async def test_a_hold_that_is_overdue_counts_no_more_though_no_releaser_came_by(
    open_client: OpenClient,
    new_wallet: NewWallet,
    sql: Sql,
    assert_problem: AssertProblem,
    assert_promises_kept: AssertPromisesKept,
    operation: str,
) -> None:
    async with open_client(hold_release_seconds=86_400) as client:
        wallet, to_bob = await new_wallet(balance="500"), {"to_wallet_id": (await new_wallet("bob"))["id"]}
        await put_limits(client, wallet, velocity=[{**OUT, "count": 3}])
        placed = (await post(client, wallet, "holds", amount="1", capture_max="50")).headers["location"]
        path, body = {
            "split": ("split", {"legs": [{"amount": "31", **to_bob}]}),
            "transfer": ("transfer", {"amount": "31", **to_bob}),
            "capture": (placed, {"amount": "32"}),
        }.get(operation, (operation, {"amount": "31"}))
        path = f"{placed}/capture" if operation == "capture" else f"/wallets/{wallet['id']}/{path}"
        for _ in range(2):
            await post(client, wallet, "holds", amount="35")
        assert_problem(await client.post(path, json=body), 422, "limit-exceeded")
        await sql("UPDATE wallet.holds SET expires_at = clock_timestamp() WHERE amount_minor = 3500")
        # Of the two, one is enough.
        assert (await client.post(path, json=body)).is_success
        assert await used(client, wallet) == {"out": ("67.00", 2 if operation == "capture" else 3)}
    await assert_promises_kept()


async def test_limits_keep_what_is_used_unless_they_become_others(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet(balance="500")
    await put_limits(client, wallet, velocity=[OUT, {**OUT, "id": "second"}])
    await post(client, wallet, "withdraw", amount="50")
    await put_limits(client, wallet, velocity=[{**OUT, "id": "third"}, {**OUT, "amount": "10", "count": 1}])
    assert await used(client, wallet) == {"third": ("0.00", 0), "out": ("50.00", 1)}
    await put_limits(client, wallet, velocity=[{**OUT, "window": "week"}])
    assert await used(client, wallet) == {"out": ("0.00", 0)}


async def test_a_limit_resets_when_its_window_is_over(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet(balance="500")
    await put_limits(client, wallet, velocity=[OUT])
    hold = (await post(client, wallet, "holds", amount="30")).headers["location"]
    await post(client, wallet, "withdraw", amount="70")
    assert_problem(await post(client, wallet, "withdraw", amount="1"), 422, "limit-exceeded")
    day = "- interval '1 day'"
    await sql(f"UPDATE wallet.velocity_limits SET window_start = window_start {day}, since = since {day}")
    await sql(f"UPDATE wallet.holds SET created_at = created_at {day}")
    assert await used(client, wallet) == {"out": ("0.00", 0)}
    assert (await post(client, wallet, "withdraw", amount="100")).status_code == 200
    # What was reserved yesterday was not counted today.
    await client.post(f"{hold}/void", json={})
    assert await used(client, wallet) == {"out": ("100.00", 1)}


async def test_a_stranger_learns_nothing_of_the_limits_of_a_receiver(
    open_client: OpenClient, monkeypatch: pytest.MonkeyPatch, assert_problem: AssertProblem
) -> None:
    believe_callers(monkeypatch)
    admin, bob = credentials("admin"), credentials("key-of-bob", "bob")
    async with open_client() as client:
        client.headers.update(admin)
        wallets = {}
        for user_id in ("ada", "bob"):
            created = await client.post("/wallets", json={"user_id": user_id, "currency": "EUR"})
            wallets[user_id] = created.json()
            await post(client, wallets[user_id], "fund", amount="150")
        await put_limits(client, wallets["ada"], balance_max="180", velocity=[{**IN, "amount": "20"}])
        to_ada = {"to_wallet_id": wallets["ada"]["id"]}
        for amount in ("20.01", "30.01"):
            for path, body in (
                ("transfer", {"amount": amount, **to_ada}),
                ("split", {"legs": [{"amount": amount, **to_ada}]}),
            ):
                reply = await client.post(f"/wallets/{wallets['bob']['id']}/{path}", json=body, headers=bob)
                problem = assert_problem(reply, 422, "receiver-unavailable")
                assert problem.keys() == {"type", "title", "status", "detail", "instance", "code"}
        # Whose own limit refuses learns that alone.
        await put_limits(client, wallets["bob"], velocity=[{**OUT, "amount": "5"}])
        body = {"amount": "20.01", **to_ada}
        reply = await client.post(f"/wallets/{wallets['bob']['id']}/transfer", json=body, headers=bob)
        assert_problem(reply, 422, "limit-exceeded")


async def test_a_limit_holds_under_many_transfers_holds_and_funds_at_once(
    client: AsyncClient,
    open_client: OpenClient,
    new_wallet: NewWallet,
    sql: Sql,
    assert_promises_kept: AssertPromisesKept,
) -> None:
    """Two processes: they share neither a batch nor what they have read."""
    wallet, other = await new_wallet(balance="500"), await new_wallet("bob")
    await put_limits(client, wallet, velocity=[OUT, {**IN, "count": 4, "amount": None}])
    requests = [
        ("transfer", {"amount": "9", "to_wallet_id": other["id"]}),
        ("holds", {"amount": "9"}),
        ("withdraw", {"amount": "9"}),
        ("fund", {"amount": "1"}),
    ]
    async with open_client() as second:
        replies = await asyncio.gather(
            *(post(process, wallet, path, **body) for path, body in requests * 3 for process in (client, second))
        )
    done: Counter[str] = Counter()
    for reply in replies:
        assert reply.status_code in {200, 201} or reply.json()["code"] == "limit-exceeded", reply.text
        done["in" if reply.request.url.path.endswith("fund") else "out"] += reply.is_success
    assert done == {"out": 11, "in": 4}
    assert await used(client, wallet) == {"out": ("99.00", 11), "in": ("4.00", 4)}
    (row,) = await sql(
        "SELECT sum(held_minor - amount_minor) FILTER (WHERE amount_minor <= 0) AS out,"
        " count(*) FILTER (WHERE amount_minor > 0) AS in FROM wallet.wallet_transactions"
        " WHERE wallet_id = $1 AND wallet_version > 3",
        UUID(wallet["id"]),
    )
    assert (row["out"], row["in"]) == (9900, 4)
    await assert_promises_kept()


@pytest.mark.parametrize("path", ["withdraw", "holds", "fund"])
async def test_of_two_processes_that_wait_for_one_wallet_the_second_sees_what_the_first_has_used(
    client: AsyncClient,
    open_client: OpenClient,
    new_wallet: NewWallet,
    patient: dict[str, float],
    database_url: str,
    until_blocked: UntilBlocked,
    path: str,
) -> None:
    wallet = await new_wallet(balance="500")
    await put_limits(client, wallet, velocity=[{**OUT, "count": 1}, {**IN, "count": 1}])
    holder = await asyncpg.connect(database_url)
    async with open_client(**patient) as first, open_client(**patient) as second:
        async with holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets WHERE id = $1 FOR UPDATE", UUID(wallet["id"]))
            asked = [asyncio.create_task(post(process, wallet, path, amount="9")) for process in (first, second)]
            await until_blocked(2)
        replies = await asyncio.gather(*asked)
    await holder.close()
    assert sorted(reply.is_success for reply in replies) == [False, True]
    assert {reply.json()["code"] for reply in replies if not reply.is_success} == {"limit-exceeded"}
