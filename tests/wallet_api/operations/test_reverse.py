"""Reversals: what was moved moves back, all of it or a part, and never more than that."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from httpx import AsyncClient, Response
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access.caller import ANONYMOUS, FUNDS_WRITE, OPS_WRITE, SCOPES, WALLETS_READ, WALLETS_WRITE
from common.money import to_major
from common.problems import Problem
from support.callers import Headers, believe_callers, credentials
from support.pipelines import reversal_of
from wallet_api.group_commit.transactions import execute
from wallet_api.operations.operation import LedgerTransaction, State
from wallet_api.operations.original import Original, OriginalEntry
from wallet_api.operations.reverse import Reverse, ReverseBody
from wallet_api.use_cases.use_cases import run_operations
from wallet_api.wallet import Wallet

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
AssertPromisesKept = Callable[[], Awaitable[None]]

UNKNOWN = "0198c2a5-0000-7000-8000-000000000001"
WHY = {"reason": "goods returned"}
ADMIN, DESK = credentials("admin"), credentials("desk", scopes=[OPS_WRITE])


@pytest.fixture
async def wallets(new_wallet: NewWallet) -> dict[str, str]:
    """The ids of a wallet with 100.00, and of three without money, of three users."""
    payer = (await new_wallet("ada", balance="100"))["id"]
    return {"payer": payer, **{name: (await new_wallet(name))["id"] for name in ("shop", "one", "two")}}


async def post(client: AsyncClient, path: str, headers: Headers | None = None, **body: Any) -> Json:
    reply = await client.post(path, json=body, headers=headers)
    assert reply.is_success, reply.text
    done: Json = reply.json()
    return done


async def move(client: AsyncClient, kind: str, wallets: dict[str, str]) -> str:
    """Make a transaction of 30.00, and return its id."""
    payer, shop = f"/wallets/{wallets['payer']}", wallets["shop"]
    receiver: Json = {"to_wallet_id": shop} if kind in {"transfer", "capture"} else {}
    body: Json = {"amount": "30"}
    if kind in {"capture", "payout"}:
        placed = await post(client, f"{payer}/holds", amount="40", **receiver)
        path = f"/holds/{placed['hold']['id']}/capture"
    elif kind == "split":
        legs = [{"to_wallet_id": wallets[name], "amount": "10"} for name in ("shop", "one", "two")]
        path, body = f"{payer}/split", {"legs": legs}
    else:
        path, body = f"{payer}/{kind}", {**body, **receiver}
    return str((await post(client, path, **body))["transaction_id"])


async def reverse(client: AsyncClient, transaction_id: str, headers: Headers | None = None, **body: Any) -> Response:
    return await client.post(f"/transactions/{transaction_id}/reverse", json={**WHY, **body}, headers=headers)


async def read(client: AsyncClient, transaction_id: str, headers: Headers | None = None) -> Json:
    reply = await client.get(f"/transactions/{transaction_id}", headers=headers)
    assert reply.status_code == 200, reply.text
    found: Json = reply.json()
    return found


async def balances(client: AsyncClient, wallets: dict[str, str]) -> dict[str, str]:
    return {name: (await client.get(f"/wallets/{id_}")).json()["balance"] for name, id_ in wallets.items()}


async def versions(sql: Sql) -> list[tuple[Any, ...]]:
    rows = await sql("SELECT id, version, balance_minor, held_minor FROM wallet.wallets ORDER BY id")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("kind", "acting", "directions"),
    [
        ("fund", "payer", ["out"]),
        ("withdraw", "payer", ["in"]),
        ("transfer", "shop", ["out", "in"]),
        ("split", "payer", ["in", "out", "out", "out"]),
        ("capture", "shop", ["out", "in"]),
        ("payout", "payer", ["in"]),
    ],
)
async def test_a_reversal_moves_all_back_and_is_linked_both_ways(
    client: AsyncClient,
    wallets: dict[str, str],
    sql: Sql,
    assert_problem: AssertProblem,
    assert_promises_kept: AssertPromisesKept,
    kind: str,
    acting: str,
    directions: list[str],
) -> None:
    """midaz#1975: reversed by hand. midaz#1265: a revert after a commit was 500."""
    before = await balances(client, wallets)
    original = await move(client, kind, wallets)
    told = await read(client, original)
    assert (told["reversed"], told["reversible"], told["reversed_by"]) == ("0.00", "30.00", [])
    reply = await reverse(client, original, reference="case 7", metadata={"a": 1})
    assert reply.status_code == 201, reply.text
    done = reply.json()
    assert (done["type"], done["amount"], done["wallet_id"]) == ("REVERSAL", "30.00", wallets[acting])
    assert (done["reverses_transaction_id"], done["reason"]) == (original, "goods returned")
    assert reply.headers["location"] == f"/transactions/{done['transaction_id']}"
    assert reply.headers["etag"] == f'"{done["version"]}"'
    assert await balances(client, wallets) == before
    told = await read(client, original)
    assert told["reversed_by"] == [{"transaction_id": done["transaction_id"], "amount": "30.00"}]
    assert (told["reversed"], told["reversible"], told["reverses"]) == ("30.00", "0.00", None)
    made = await read(client, done["transaction_id"])
    assert (made["reverses"], made["reversed_by"], made["reversible"]) == (original, [], None)
    for wallet_id in filter(None, (leg["wallet_id"] for leg in made["legs"])):
        entries = (await client.get(f"/wallets/{wallet_id}/transactions")).json()["items"]
        links = {entry["transaction_id"]: entry["reverses"] for entry in entries}
        assert links[done["transaction_id"]] == original
        assert links[original] is None
    assert made["details"] == {"reverses_transaction_id": original, "reason": "goods returned"}
    assert (made["reference"], made["metadata"]) == ("case 7", {"a": 1})
    (row,) = await sql("SELECT payload FROM wallet.outbox WHERE event_type = 'MOVEMENT_REVERSED'")
    event = json.loads(row["payload"])
    assert (event["reverses_transaction_id"], event["reason"], event["amount"]) == (original, WHY["reason"], "30.00")
    assert [change["direction"] for change in event["wallets"]] == directions
    assert event["wallets"][0]["wallet_id"] == wallets[acting]
    seen = await versions(sql)
    problem = assert_problem(await reverse(client, original), 409, "already-reversed")
    assert (problem["reversed"], problem["reversible"]) == ("30.00", "0.00")
    assert_problem(
        await reverse(client, original, amount="0.01"),
        409 if kind != "split" else 422,
        ("already-reversed" if kind != "split" else "validation-error"),
    )
    assert await versions(sql) == seen
    await assert_promises_kept()


async def test_a_capture_that_is_reversed_leaves_its_hold_as_it_is(
    client: AsyncClient, wallets: dict[str, str]
) -> None:
    path = f"/wallets/{wallets['payer']}/holds"
    placed = (await post(client, path, amount="40", to_wallet_id=wallets["shop"]))["hold"]
    captured = await post(client, f"/holds/{placed['id']}/capture", amount="30", final=False)
    assert (await reverse(client, captured["transaction_id"])).status_code == 201
    found = (await client.get(f"/holds/{placed['id']}")).json()
    assert (found["status"], found["captured"], found["remaining"]) == ("open", "30.00", "10.00")
    assert (await client.get(f"/wallets/{wallets['payer']}")).json()["held"] == "10.00"
    assert (await read(client, captured["transaction_id"]))["hold_id"] == placed["id"]


async def test_parts_are_reversed_up_to_the_whole_and_no_further(
    client: AsyncClient, wallets: dict[str, str], sql: Sql, assert_problem: AssertProblem
) -> None:
    """blnk#152: refunded repeatedly. blnk#374: a 409 moved money."""
    original = await move(client, "transfer", wallets)
    first = (await reverse(client, original, amount="10")).json()
    seen = await versions(sql)
    problem = assert_problem(await reverse(client, original, amount="20.01"), 422, "reversal-exceeds-original")
    assert problem["reversible"] == "20.00"
    assert problem["detail"] == "amount: at most 20.00 EUR can still be reversed. Send a smaller amount."
    for amount in ("0", "-1", "0.001", "x", ""):
        assert_problem(await reverse(client, original, amount=amount), 422, "validation-error")
    assert await versions(sql) == seen
    told = await read(client, original)
    assert (told["reversed"], told["reversible"]) == ("10.00", "20.00")
    rest = (await reverse(client, original)).json()
    assert rest["amount"] == "20.00"
    told = await read(client, original)
    assert [(item["transaction_id"], item["amount"]) for item in told["reversed_by"]] == [
        (first["transaction_id"], "10.00"),
        (rest["transaction_id"], "20.00"),
    ]
    problem = assert_problem(await reverse(client, original, amount="1"), 409, "already-reversed")
    assert (problem["reversed"], problem["reversible"]) == ("30.00", "0.00")


async def test_each_leg_of_a_split_is_reversed_up_to_its_own_amount(
    client: AsyncClient,
    wallets: dict[str, str],
    assert_problem: AssertProblem,
    assert_promises_kept: AssertPromisesKept,
) -> None:
    original = await move(client, "split", wallets)

    async def give_back(**amounts: str) -> Response:
        legs = [{"to_wallet_id": wallets[name], "amount": amount} for name, amount in amounts.items()]
        return await reverse(client, original, legs=legs)

    done = (await give_back(one="4")).json()
    assert (done["wallet_id"], done["amount"]) == (wallets["one"], "4.00")
    problem = assert_problem(await give_back(one="6.01", two="1"), 422, "reversal-exceeds-original")
    assert (problem["reversible"], problem["detail"].split(":")[0]) == ("6.00", "legs.0.amount")
    done = (await give_back(one="6", two="1")).json()
    assert (done["wallet_id"], done["amount"]) == (wallets["payer"], "7.00")
    problem = assert_problem(await give_back(two="1", one="1"), 409, "already-reversed")
    assert (problem["reversed"], problem["reversible"]) == ("10.00", "0.00")
    for legs, amount, field in [
        ([("payer", "1")], None, "legs.0.to_wallet_id"),
        ([("two", "1"), ("two", "1")], None, "legs.1.to_wallet_id"),
        ([("two", "1")], "1", "amount"),
        (None, "1", "amount"),
        ([], None, "legs"),
    ]:
        body: Json = {"amount": amount}
        if legs is not None:
            body["legs"] = [{"to_wallet_id": wallets[name], "amount": part} for name, part in legs]
        problem = assert_problem(await reverse(client, original, **body), 422, "validation-error")
        assert [error["field"] for error in problem["errors"]] == [field]
    assert (await reverse(client, original)).json()["amount"] == "19.00"
    assert (await balances(client, wallets))["payer"] == "100.00"
    await assert_promises_kept()


async def test_what_is_no_movement_and_reversals_cannot_be_reversed(
    client: AsyncClient, wallets: dict[str, str], sql: Sql, assert_problem: AssertProblem
) -> None:
    path = f"/wallets/{wallets['payer']}"
    placed = [await post(client, f"{path}/holds", amount="1", expires_in=1) for _ in range(3)]
    await post(client, f"/holds/{placed[0]['hold']['id']}/void")
    await sql("UPDATE wallet.holds SET expires_at = '2020-01-01Z' WHERE status = 'open'")
    # Short of funds, it releases the two that are overdue.
    await post(client, f"{path}/withdraw", amount="100")
    await post(client, f"{path}/freeze", reason="a test", blocks="in")
    for act in ("unfreeze", "close", "reopen"):
        await post(client, f"{path}/{act}", reason="a test")
    await post(client, f"{path}/fund", amount="30")
    reversed_ = await move(client, "transfer", wallets)
    assert (await reverse(client, reversed_)).status_code == 201
    made = await sql("SELECT DISTINCT ON (type) type, transaction_id::text FROM wallet.wallet_transactions")
    ids = {row["type"]: row["transaction_id"] for row in made}
    movements = {"FUND", "WITHDRAW", "TRANSFER"}
    assert ids.keys() - movements == {"HOLD", "VOID", "EXPIRE", "FREEZE", "UNFREEZE", "CLOSE", "REOPEN", "REVERSAL"}
    seen = await versions(sql)
    for type_ in ids.keys() - movements:
        for amount in (None, "1"):
            problem = assert_problem(await reverse(client, ids[type_], amount=amount), 409, "not-reversible")
            assert problem["transaction_type"] == type_
        assert (await read(client, ids[type_]))["reversible"] is None
    assert await versions(sql) == seen
    assert_problem(await reverse(client, UNKNOWN), 404, "transaction-not-found")


async def test_a_receiver_that_is_short_gives_nothing_back_and_overdue_holds_are_released_first(
    client: AsyncClient, wallets: dict[str, str], sql: Sql, assert_problem: AssertProblem
) -> None:
    original = await move(client, "split", wallets)
    shop = f"/wallets/{wallets['shop']}"
    await post(client, f"{shop}/holds", amount="4")
    for _ in range(2):
        await post(client, f"{shop}/holds", amount="3")
    seen = await versions(sql)
    problem = assert_problem(await reverse(client, original), 422, "insufficient-funds")
    assert "has 0.00 EUR available, less than 10.00" in problem["detail"]
    assert await versions(sql) == seen
    await sql("UPDATE wallet.holds SET expires_at = '2020-01-01Z' WHERE amount_minor = 300")
    problem = assert_problem(await reverse(client, original), 422, "insufficient-funds")
    assert await versions(sql) == seen
    legs = [{"to_wallet_id": wallets[name], "amount": "6"} for name in ("shop", "one")]
    done = (await reverse(client, original, legs=legs)).json()
    assert (done["wallet_id"], done["amount"]) == (wallets["payer"], "12.00")
    found = (await client.get(shop)).json()
    assert (found["balance"], found["held"], found["available"]) == ("4.00", "4.00", "0.00")


async def test_a_payer_that_cannot_hold_so_much_gets_nothing_back(
    client: AsyncClient, wallets: dict[str, str], assert_problem: AssertProblem
) -> None:
    original = await move(client, "transfer", wallets)
    await post(client, f"/wallets/{wallets['payer']}/fund", amount="92233720368547688.07")
    assert_problem(await reverse(client, original), 422, "balance-limit-exceeded")


async def test_if_match_names_the_version_of_the_acting_wallet(
    client: AsyncClient, wallets: dict[str, str], assert_problem: AssertProblem
) -> None:
    original = await move(client, "transfer", wallets)
    shop = (await client.get(f"/wallets/{wallets['shop']}")).headers["etag"]
    payer = (await client.get(f"/wallets/{wallets['payer']}")).headers["etag"]
    assert shop != payer
    assert_problem(await reverse(client, original, {"If-Match": payer}), 412, "version-mismatch")
    assert (await reverse(client, original, {"If-Match": shop})).status_code == 201


@pytest.mark.parametrize("kind", ["transfer", "withdraw", "split"])
async def test_many_partial_reversals_at_once_never_exceed_the_original(
    open_client: OpenClient,
    client: AsyncClient,
    wallets: dict[str, str],
    sql: Sql,
    assert_promises_kept: AssertPromisesKept,
    kind: str,
) -> None:
    """blnk#152, by two processes that share commits of several reversals."""
    original = await move(client, kind, wallets)
    for name in ("shop", "one", "two"):
        await post(client, f"/wallets/{wallets[name]}/fund", amount="100")
    if kind == "split":
        parts: list[Json] = [
            {"legs": [{"to_wallet_id": wallets[name], "amount": "4"} for name in names]}
            for names in [("shop",), ("one",), ("two",), ("one", "two"), ("shop", "one")]
        ]
    else:
        parts = [{"amount": "7"}] * 5
    async with open_client() as other:
        replies = await asyncio.gather(
            *(reverse(api, original, **part) for part in parts * 2 for api in (client, other))
        )
    codes = Counter(reply.json().get("code", "done") for reply in replies)
    assert codes.keys() <= {"done", "reversal-exceeds-original", "already-reversed"}
    assert sum(codes.values()) == len(replies)
    told = await read(client, original)
    back = sum(Decimal(reply.json()["amount"]) for reply in replies if reply.status_code == 201)
    assert Decimal(told["reversed"]) == back <= 30
    # Each leg has given back as much as it could, in parts of this size.
    assert back == (24 if kind == "split" else 28)
    rows = await sql(
        "SELECT wallet_id, -sum(amount_minor) AS back FROM wallet.wallet_transactions"
        " WHERE reverses_transaction_id = $1 AND amount_minor < 0 GROUP BY wallet_id",
        UUID(original),
    )
    assert {row["back"] for row in rows} == ({800} if kind == "split" else {2800})
    await assert_promises_kept()


async def test_a_reversal_that_waited_for_another_one_counts_what_that_one_has_reversed(
    open_client: OpenClient,
    client: AsyncClient,
    wallets: dict[str, str],
    patient: dict[str, float],
    database_url: str,
    until_blocked: Callable[[int], Awaitable[None]],
) -> None:
    """Two processes have both begun when the first one may go on; together they would exceed the original."""
    original = await move(client, "transfer", wallets)
    # The receiver has enough for both.
    await post(client, f"/wallets/{wallets['shop']}/fund", amount="100")
    async with open_client(**patient) as one, open_client(**patient) as two:
        holder = await asyncpg.connect(database_url)
        async with asyncio.TaskGroup() as tasks, holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets ORDER BY id FOR UPDATE")
            asked = [tasks.create_task(reverse(api, original, amount="20")) for api in (one, two)]
            await until_blocked(2)
        await holder.close()
    codes = Counter(task.result().json().get("code", "done") for task in asked)
    assert codes == {"done": 1, "reversal-exceeds-original": 1}
    assert (await read(client, original))["reversible"] == "10.00"


async def test_reversals_of_one_batch_see_one_another(
    client: AsyncClient, wallets: dict[str, str], engine: AsyncEngine, assert_promises_kept: AssertPromisesKept
) -> None:
    original = await move(client, "transfer", wallets)
    command = await reversal_of(engine, UUID(original), "10")
    replies = await execute(engine, run_operations, [command] * 6)
    assert [reply.outcome for reply in replies] == ["done"] * 3 + ["already-reversed"] * 3
    assert (await read(client, original))["reversible"] == "0.00"
    await assert_promises_kept()


@pytest.fixture
async def bound(
    open_client: OpenClient, monkeypatch: pytest.MonkeyPatch, wallets: dict[str, str]
) -> AsyncIterator[AsyncClient]:
    """A client of an API whose owners may reverse; its requests name their callers. The wallets are there before."""
    del wallets
    believe_callers(monkeypatch)
    async with open_client(owner_operations="reverse") as client:
        client.headers.update(ADMIN)
        yield client


def owner(user_id: str, *scopes: str) -> Headers:
    return credentials(f"key-of-{user_id}", user_id, [WALLETS_READ, WALLETS_WRITE, *scopes])


async def test_owners_give_back_what_their_wallets_received_and_take_nothing_back(
    bound: AsyncClient, wallets: dict[str, str], sql: Sql, assert_problem: AssertProblem
) -> None:
    transfer = await move(bound, "transfer", wallets)
    seen = await versions(sql)
    assert_problem(await reverse(bound, transfer, owner("ada")), 403, "forbidden")
    assert_problem(await reverse(bound, transfer, credentials("full", "ada", SCOPES)), 403, "forbidden")
    assert await versions(sql) == seen
    given = await reverse(bound, transfer, owner("shop"), amount="10")
    assert (given.status_code, given.json()["wallet_id"]) == (201, wallets["shop"])
    # Money that leaves the system, or comes into it, needs the scope of funds and payouts.
    fund, withdrawal = await move(bound, "fund", wallets), await move(bound, "withdraw", wallets)
    refused = await reverse(bound, fund, owner("ada"))
    assert_problem(refused, 403, "forbidden")
    assert FUNDS_WRITE in refused.headers["www-authenticate"]
    assert (await reverse(bound, fund, owner("ada", FUNDS_WRITE))).status_code == 201
    assert_problem(await reverse(bound, withdrawal, owner("ada", FUNDS_WRITE)), 403, "forbidden")
    assert_problem(await reverse(bound, withdrawal, credentials("w", scopes=[WALLETS_WRITE])), 403, "forbidden")
    assert (await reverse(bound, withdrawal)).status_code == 201


async def test_without_the_setting_only_operators_reverse(
    open_client: OpenClient, monkeypatch: pytest.MonkeyPatch, wallets: dict[str, str], assert_problem: AssertProblem
) -> None:
    believe_callers(monkeypatch)
    async with open_client() as client:
        client.headers.update(ADMIN)
        fund = await move(client, "fund", wallets)
        assert_problem(await reverse(client, fund, owner("ada", FUNDS_WRITE)), 403, "forbidden")
        assert (await reverse(client, fund, DESK)).status_code == 201


async def test_a_receiver_of_a_split_sees_and_gives_back_its_own_leg_only(
    bound: AsyncClient, wallets: dict[str, str], assert_problem: AssertProblem
) -> None:
    split = await move(bound, "split", wallets)
    legs = [{"to_wallet_id": wallets["one"], "amount": "4"}]
    assert (await reverse(bound, split, legs=legs)).status_code == 201
    told = {user: await read(bound, split, owner(user)) for user in ("ada", "shop", "one")}
    assert [(told[user]["reversed"], told[user]["reversible"], len(told[user]["reversed_by"])) for user in told] == [
        ("4.00", "26.00", 1),
        ("0.00", "10.00", 0),
        ("4.00", "6.00", 1),
    ]
    others = [
        await reverse(bound, split, owner("shop"), legs=[{"to_wallet_id": id_, "amount": "1"}])
        for id_ in (wallets["two"], UNKNOWN)
    ]
    assert len({reply.content for reply in others}) == 1
    assert_problem(others[0], 422, "validation-error")
    problem = assert_problem(await reverse(bound, split, owner("one"), amount="7"), 422, "reversal-exceeds-original")
    assert problem["reversible"] == "6.00"
    given = await reverse(bound, split, owner("shop"))
    assert (given.json()["wallet_id"], given.json()["amount"]) == (wallets["shop"], "10.00")
    problem = assert_problem(await reverse(bound, split, owner("shop")), 409, "already-reversed")
    assert problem["reversed"] == "10.00"


async def test_an_owner_of_two_receivers_names_the_one_that_gives_back(
    bound: AsyncClient, wallets: dict[str, str], new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    second = (await new_wallet("shop"))["id"]
    receivers = [wallets["shop"], second, wallets["one"]]
    parts = [{"to_wallet_id": id_, "amount": "1"} for id_ in receivers]
    split = (await post(bound, f"/wallets/{wallets['payer']}/split", legs=parts))["transaction_id"]
    for body in ({}, {"amount": "1"}, {"legs": parts[:2]}):
        problem = assert_problem(await reverse(bound, split, owner("shop"), **body), 422, "validation-error")
        assert [error["field"] for error in problem["errors"]] == ["legs"]
    given = await reverse(bound, split, owner("shop"), legs=parts[1:2])
    assert (given.status_code, given.json()["wallet_id"]) == (201, second)


async def test_a_bound_caller_does_not_learn_why_the_payer_cannot_get_it_back(
    bound: AsyncClient, wallets: dict[str, str], assert_problem: AssertProblem
) -> None:
    original = await move(bound, "transfer", wallets)
    await post(bound, f"/wallets/{wallets['payer']}/freeze", blocks="in", reason="a warrant")
    unavailable = assert_problem(await reverse(bound, original, owner("shop")), 422, "receiver-unavailable")
    frozen = assert_problem(await reverse(bound, original), 409, "wallet-frozen")
    assert not [told for told in (unavailable, frozen) if "another wallet" in told["detail"]]
    assert_problem(await reverse(bound, original, owner("shop"), amount="30.01"), 422, "reversal-exceeds-original")


async def test_a_strangers_transaction_is_like_one_that_does_not_exist(
    bound: AsyncClient, wallets: dict[str, str], assert_problem: AssertProblem
) -> None:
    original = await move(bound, "transfer", wallets)
    assert (await reverse(bound, original, amount="1")).status_code == 201
    for body in ({}, {"amount": "99"}, {"amount": "x"}, {"legs": [{"to_wallet_id": wallets["shop"], "amount": "1"}]}):
        replies = []
        for transaction_id in (original, UNKNOWN):
            reply = await reverse(bound, transaction_id, owner("eve", OPS_WRITE), **body)
            replies.append((reply.content.replace(transaction_id.encode(), b"ID"), reply.headers.multi_items()))
            assert_problem(reply, 404, "transaction-not-found")
        assert replies[0] == replies[1]


PAYER, *RECEIVERS = [UUID(int=number) for number in range(1, 5)]


def command(original: Original, **told: Any) -> Reverse:
    body = ReverseBody.model_validate({**WHY, **told})
    return Reverse(
        **dict(body),
        path="/",
        caller=ANONYMOUS,
        wallet_id=Reverse.acting_wallet_id(original, body, ANONYMOUS),
        original=original,
    )


def decided(asked: Reverse, state: State) -> LedgerTransaction | Problem:
    try:
        (made,) = asked.decide(state)
    except Problem as refusal:
        return refusal
    return made


LEGS = st.lists(st.integers(1, 50), min_size=1, max_size=3)
TOLD = st.lists(st.dictionaries(st.integers(0, 2), st.integers(1, 60), max_size=3), max_size=8)


@given(LEGS, TOLD)
def test_whatever_is_asked_for_each_leg_gives_back_at_most_what_it_received(
    amounts: list[int], told: list[dict[int, int]]
) -> None:
    """Without amounts a request asks for all that is left."""
    received = dict(zip(RECEIVERS, amounts, strict=False))
    sides = [(PAYER, -sum(amounts)), *received.items()]
    original = Original(UUID(int=9), "SPLIT", "EUR", tuple(OriginalEntry(id_, "ada", part) for id_, part in sides))
    wallets = {id_: Wallet(id_, "ada", "EUR", 1000, 1, "active") for id_, _ in sides}
    state = State.at(datetime.min.replace(tzinfo=UTC), wallets)
    for parts in told:
        legs = [
            {"to_wallet_id": str(RECEIVERS[number]), "amount": to_major(part, "EUR")} for number, part in parts.items()
        ]
        asked = command(original, legs=legs or None)
        left = {id_: part - state.reversals.get(original.id, Counter())[id_] for id_, part in received.items()}
        made = decided(asked, state)
        if isinstance(made, Problem):
            is_over = any(part > left.get(RECEIVERS[number], 0) for number, part in parts.items())
            assert is_over or not any(left.values())
            continue
        assert sum(entry.amount_minor for entry in made.entries) == 0
        assert made.entries[0].wallet == made.wallet
        assert made.wallet.id == asked.wallet_id
        gave = {entry.wallet.id: -entry.amount_minor for entry in made.entries if entry.wallet}
        assert all(0 < gave[id_] <= left[id_] for id_ in gave if id_ != PAYER)
        assert -gave[PAYER] == made.amount_minor == sum(part for id_, part in gave.items() if id_ != PAYER)
        state.apply([made])
    assert all(back <= received[id_] for id_, back in state.reversals.get(original.id, Counter()).items() if id_)
