"""Holds: money is reserved, captured, released; and it expires on time."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from itertools import product
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from httpx import AsyncClient, Response

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
AssertPromisesKept = Callable[[], Awaitable[None]]

UNKNOWN = "0198c2a5-0000-7000-8000-000000000001"


@pytest.fixture
async def client(open_client: OpenClient) -> Any:
    """A client of an API whose releaser never comes by."""
    async with open_client(hold_release_seconds=86_400) as client:
        yield client


@pytest.fixture
def hold(client: AsyncClient) -> Callable[..., Awaitable[Json]]:
    """Place a hold, and return what is said of it."""

    async def place(wallet: Json, amount: str, **fields: Any) -> Json:
        reply = await client.post(f"/wallets/{wallet['id']}/holds", json={"amount": amount, **fields})
        assert reply.status_code == 201, reply.text
        placed: Json = reply.json()["hold"]
        return placed

    return place


@pytest.fixture
def expire(sql: Sql) -> Callable[[Json], Awaitable[None]]:
    """Let a hold's time be over."""

    async def run(hold: Json) -> None:
        await sql("UPDATE wallet.holds SET expires_at = clock_timestamp() WHERE id = $1", UUID(hold["id"]))

    return run


Place = Callable[..., Awaitable[Json]]
Expire = Callable[[Json], Awaitable[None]]


async def money(client: AsyncClient, wallet: Json) -> tuple[str, str, str, int]:
    read = (await client.get(f"/wallets/{wallet['id']}")).json()
    return read["balance"], read["held"], read["available"], read["version"]


async def capture(client: AsyncClient, hold: Json, **body: Any) -> Response:
    return await client.post(f"/holds/{hold['id']}/capture", json=body)


async def void(client: AsyncClient, hold: Json, **body: Any) -> Response:
    return await client.post(f"/holds/{hold['id']}/void", json=body)


async def test_a_hold_reserves_money_and_leaves_the_balance_and_the_receiver_as_they_are(
    client: AsyncClient, new_wallet: NewWallet, assert_promises_kept: AssertPromisesKept
) -> None:
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    body = {"amount": "30", "to_wallet_id": shop["id"], "reference": "room 7", "metadata": {"nights": 2}}
    reply = await client.post(f"/wallets/{payer['id']}/holds", json=body)
    placed = reply.json()
    held = placed["hold"]
    assert (reply.status_code, reply.headers["etag"], reply.headers["location"]) == (201, '"3"', f"/holds/{held['id']}")
    assert (placed["type"], placed["amount"], placed["balance"], placed["held"], placed["available"]) == (
        "HOLD",
        "30.00",
        "50.00",
        "30.00",
        "20.00",
    )
    assert await money(client, payer) == ("50.00", "30.00", "20.00", 3)
    assert await money(client, shop) == ("0.00", "0.00", "0.00", 1)
    read = (await client.get(f"/holds/{held['id']}")).json()
    assert {name: read[name] for name in held} == held
    assert (held["status"], held["captured"], held["remaining"], held["capture_max"]) == (
        "open",
        "0.00",
        "30.00",
        "30.00",
    )
    assert (read["reference"], read["metadata"]) == ("room 7", {"nights": 2})
    assert read["transaction_ids"] == [placed["transaction_id"]]
    (entry, *_) = (await client.get(f"/wallets/{payer['id']}/transactions")).json()["items"]
    assert (entry["amount"], entry["held"], entry["held_after"], entry["hold_id"]) == (
        "0.00",
        "30.00",
        "30.00",
        held["id"],
    )
    await assert_promises_kept()


async def test_what_is_held_cannot_be_spent_or_held_again(
    client: AsyncClient, new_wallet: NewWallet, hold: Place, assert_problem: AssertProblem
) -> None:
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    await hold(payer, "30")
    before = await money(client, payer)
    for path, body in [("withdraw", {}), ("transfer", {"to_wallet_id": shop["id"]}), ("holds", {})]:
        reply = await client.post(f"/wallets/{payer['id']}/{path}", json={"amount": "20.01", **body})
        assert "has 20.00 EUR available" in assert_problem(reply, 422, "insufficient-funds")["detail"]
    assert await money(client, payer) == before


async def test_of_six_holds_at_once_on_money_for_five_the_sixth_is_refused(
    client: AsyncClient, new_wallet: NewWallet, assert_promises_kept: AssertPromisesKept
) -> None:
    """blnk#181: holds exceeded the balance."""
    payer = await new_wallet(balance="50")
    replies = await asyncio.gather(
        *(client.post(f"/wallets/{payer['id']}/holds", json={"amount": "10"}) for _ in range(6))
    )
    assert sorted(reply.status_code for reply in replies) == [201] * 5 + [422]
    assert await money(client, payer) == ("50.00", "50.00", "0.00", 7)
    await assert_promises_kept()


async def test_a_capture_moves_what_is_held_to_the_receiver(
    client: AsyncClient, new_wallet: NewWallet, hold: Place, assert_promises_kept: AssertPromisesKept
) -> None:
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    placed = await hold(payer, "30", to_wallet_id=shop["id"])
    reply = await capture(client, placed)
    captured = reply.json()
    assert reply.status_code == 200, reply.text
    assert (captured["type"], captured["amount"], captured["counterparty_wallet_id"]) == (
        "CAPTURE",
        "30.00",
        shop["id"],
    )
    assert (captured["hold"]["status"], captured["hold"]["captured"], captured["hold"]["remaining"]) == (
        "captured",
        "30.00",
        "0.00",
    )
    assert await money(client, payer) == ("20.00", "0.00", "20.00", 4)
    assert await money(client, shop) == ("30.00", "0.00", "30.00", 2)
    await assert_promises_kept()


async def test_a_capture_without_a_receiver_takes_the_money_out_of_the_system(
    client: AsyncClient, new_wallet: NewWallet, hold: Place, sql: Sql, assert_promises_kept: AssertPromisesKept
) -> None:
    payer = await new_wallet(balance="50")
    await capture(client, await hold(payer, "30"), amount="20")
    assert await money(client, payer) == ("30.00", "0.00", "30.00", 4)
    entries = (
        "SELECT wallet_id IS NULL AS world, amount_minor, held_minor FROM wallet.wallet_transactions WHERE type = $1"
    )
    rows = {row["world"]: (row["amount_minor"], row["held_minor"]) for row in await sql(entries, "CAPTURE")}
    assert rows == {False: (-2000, -3000), True: (2000, 3000)}
    await assert_promises_kept()


async def test_captures_that_are_not_final_leave_the_rest_reserved(
    client: AsyncClient,
    new_wallet: NewWallet,
    hold: Place,
    assert_problem: AssertProblem,
    assert_promises_kept: AssertPromisesKept,
) -> None:
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    placed = await hold(payer, "30", to_wallet_id=shop["id"])
    assert (await capture(client, placed, amount="10", final=False)).json()["hold"]["status"] == "open"
    assert await money(client, payer) == ("40.00", "20.00", "20.00", 4)
    await capture(client, placed, amount="5", final=False)
    assert await money(client, payer) == ("35.00", "15.00", "20.00", 5)
    last = (await capture(client, placed, amount="5")).json()["hold"]
    assert (last["status"], last["captured"], last["remaining"]) == ("captured", "20.00", "0.00")
    assert await money(client, payer) == ("30.00", "0.00", "30.00", 6)
    assert await money(client, shop) == ("20.00", "0.00", "20.00", 4)
    problem = assert_problem(await capture(client, placed, amount="1"), 409, "hold-not-open")
    assert problem["hold_status"] == "captured"
    await assert_promises_kept()


async def test_a_capture_of_all_that_is_reserved_is_final(
    client: AsyncClient, new_wallet: NewWallet, hold: Place
) -> None:
    placed = await hold(await new_wallet(balance="50"), "30")
    assert (await capture(client, placed, final=False)).json()["hold"]["status"] == "captured"


async def test_a_capture_takes_at_most_capture_max_and_the_excess_from_what_is_available(
    client: AsyncClient,
    new_wallet: NewWallet,
    hold: Place,
    assert_problem: AssertProblem,
    assert_promises_kept: AssertPromisesKept,
) -> None:
    """blnk#62: a capture above the hold."""
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    placed = await hold(payer, "30", to_wallet_id=shop["id"], capture_max="45")
    await capture(client, placed, amount="10", final=False)
    problem = assert_problem(await capture(client, placed, amount="35.01"), 422, "capture-exceeds-hold")
    assert problem["capturable"] == "35.00"
    other = await hold(payer, "10")
    assert_problem(await capture(client, placed, amount="35"), 422, "insufficient-funds")
    assert await money(client, payer) == ("40.00", "30.00", "10.00", 5)
    await void(client, other)
    assert (await capture(client, placed, amount="35")).json()["hold"]["captured"] == "45.00"
    assert await money(client, payer) == ("5.00", "0.00", "5.00", 7)
    await assert_promises_kept()


@pytest.mark.parametrize("amount", ["0", "0.00", "-1", "1.001", "x"])
async def test_a_capture_of_nothing_is_refused(
    client: AsyncClient, new_wallet: NewWallet, hold: Place, assert_problem: AssertProblem, amount: str
) -> None:
    payer = await new_wallet(balance="50")
    placed = await hold(payer, "30")
    assert_problem(await capture(client, placed, amount=amount), 422, "validation-error")
    assert await money(client, payer) == ("50.00", "30.00", "20.00", 3)


async def test_a_capture_max_below_the_amount_is_refused(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    payer = await new_wallet(balance="50")
    body = {"amount": "30", "capture_max": "29.99"}
    assert_problem(await client.post(f"/wallets/{payer['id']}/holds", json=body), 422, "validation-error")


async def test_a_void_releases_what_is_left_and_a_second_one_names_the_state(
    client: AsyncClient,
    new_wallet: NewWallet,
    hold: Place,
    assert_problem: AssertProblem,
    assert_promises_kept: AssertPromisesKept,
) -> None:
    """blnk#41: a second void succeeded."""
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    placed = await hold(payer, "30", to_wallet_id=shop["id"])
    await capture(client, placed, amount="10", final=False)
    reply = (await void(client, placed, reason="no show")).json()
    assert (reply["type"], reply["amount"], reply["reason"]) == ("VOID", "20.00", "no show")
    assert (reply["hold"]["status"], reply["hold"]["captured"]) == ("voided", "10.00")
    assert await money(client, payer) == ("40.00", "0.00", "40.00", 5)
    for again in (void, capture):
        problem = assert_problem(await again(client, placed), 409, "hold-not-open")
        assert problem["hold_status"] == "voided"
    assert await money(client, payer) == ("40.00", "0.00", "40.00", 5)
    await assert_promises_kept()


async def test_a_late_payment_after_a_void_is_a_new_transfer_that_may_cite_the_hold(
    client: AsyncClient, new_wallet: NewWallet, hold: Place, assert_problem: AssertProblem
) -> None:
    """blnk#42: the terminal state stays."""
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    placed = await hold(payer, "30", to_wallet_id=shop["id"])
    await void(client, placed)
    assert_problem(await capture(client, placed), 409, "hold-not-open")
    body = {"amount": "30", "to_wallet_id": shop["id"], "reference": placed["id"]}
    paid = await client.post(f"/wallets/{payer['id']}/transfer", json=body)
    assert paid.status_code == 200
    assert (await client.get(f"/holds/{placed['id']}")).json()["status"] == "voided"
    (found,) = (await client.get("/transactions", params={"reference": placed["id"]})).json()["items"]
    assert (found["transaction_id"], found["type"]) == (paid.json()["transaction_id"], "TRANSFER")


async def test_no_version_is_without_its_entry_and_its_event_whatever_becomes_of_a_hold(
    client: AsyncClient, new_wallet: NewWallet, hold: Place, expire: Expire, sql: Sql
) -> None:
    """midaz PR 1784: a receiver's version rose when money was reserved for it, and nothing told of that version."""
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    captured, voided, overdue = [await hold(payer, "10", to_wallet_id=shop["id"]) for _ in range(3)]
    assert (await money(client, shop))[3] == 1
    for amount, final in (("4", False), ("6", True)):
        assert (await capture(client, captured, amount=amount, final=final)).status_code == 200
    assert (await void(client, voided)).status_code == 200
    await expire(overdue)
    # It is short of funds before the overdue hold is released.
    assert (await client.post(f"/wallets/{payer['id']}/withdraw", json={"amount": "40"})).status_code == 200
    for wallet, version in ((payer, 10), (shop, 3)):
        assert (await money(client, wallet))[3] == version
        entries = "SELECT wallet_version FROM wallet.wallet_transactions WHERE wallet_id = $1 ORDER BY 1"
        assert [row[0] for row in await sql(entries, UUID(wallet["id"]))] == list(range(2, version + 1))
        events = (
            "SELECT (change ->> 'version')::bigint FROM wallet.outbox, json_array_elements(payload -> 'wallets') change"
            " WHERE change ->> 'wallet_id' = $1 ORDER BY 1"
        )
        assert [row[0] for row in await sql(events, wallet["id"])] == list(range(1, version + 1))


@pytest.mark.parametrize("act", [capture, void])
async def test_an_overdue_hold_is_expired_though_no_releaser_came_by(
    client: AsyncClient,
    new_wallet: NewWallet,
    hold: Place,
    expire: Expire,
    assert_problem: AssertProblem,
    act: Callable[..., Awaitable[Response]],
) -> None:
    payer = await new_wallet(balance="50")
    placed = await hold(payer, "30")
    await expire(placed)
    problem = assert_problem(await act(client, placed), 409, "hold-expired")
    assert problem["hold_status"] == "expired"
    read = (await client.get(f"/holds/{placed['id']}")).json()
    assert (read["status"], read["remaining"]) == ("expired", "0.00")
    for status, count in {"expired": 1, "open": 0}.items():
        listed = (await client.get(f"/wallets/{payer['id']}/holds?status={status}")).json()["items"]
        assert len(listed) == count


async def test_a_hold_expires_when_its_seconds_are_over(
    client: AsyncClient, new_wallet: NewWallet, hold: Place, eventually: Callable[..., Awaitable[Any]]
) -> None:
    placed = await hold(await new_wallet(balance="50"), "30", expires_in=1)

    async def is_expired() -> bool:
        return bool((await client.get(f"/holds/{placed['id']}")).json()["status"] == "expired")

    assert not await is_expired()
    await eventually(is_expired)


@pytest.mark.parametrize("operation", ["withdraw", "transfer", "holds"])
async def test_a_command_that_is_short_of_funds_first_releases_overdue_holds(
    client: AsyncClient,
    new_wallet: NewWallet,
    hold: Place,
    expire: Expire,
    sql: Sql,
    assert_promises_kept: AssertPromisesKept,
    operation: str,
) -> None:
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    overdue = [await hold(payer, "10") for _ in range(3)]
    for placed in overdue:
        await expire(placed)
    body = {"amount": "35", **({"to_wallet_id": shop["id"]} if operation == "transfer" else {})}
    reply = await client.post(f"/wallets/{payer['id']}/{operation}", json=body)
    assert reply.is_success, reply.text
    # Two of them are enough.
    assert reply.json()["version"] == 8
    statuses = await sql("SELECT status FROM wallet.holds WHERE wallet_id = $1 ORDER BY id LIMIT 3", UUID(payer["id"]))
    assert [row["status"] for row in statuses] == ["expired", "expired", "open"]
    events = await sql("SELECT event_type, payload FROM wallet.outbox ORDER BY id DESC LIMIT 3")
    assert [row["event_type"] for row in events[1:]] == ["HOLD_EXPIRED", "HOLD_EXPIRED"]
    assert json.loads(events[1]["payload"])["reference"] is None
    await assert_promises_kept()


async def test_a_command_that_stays_short_of_funds_releases_nothing(
    client: AsyncClient, new_wallet: NewWallet, hold: Place, expire: Expire, assert_problem: AssertProblem
) -> None:
    payer = await new_wallet(balance="50")
    placed = await hold(payer, "10")
    await expire(placed)
    before = await money(client, payer)
    refused = await client.post(f"/wallets/{payer['id']}/withdraw", json={"amount": "50.01"})
    assert "has 50.00 EUR available" in assert_problem(refused, 422, "insufficient-funds")["detail"]
    assert await money(client, payer) == before


async def test_many_releasers_release_each_overdue_hold_once(
    client: AsyncClient,
    open_client: OpenClient,
    new_wallet: NewWallet,
    hold: Place,
    expire: Expire,
    sql: Sql,
    eventually: Callable[..., Awaitable[Any]],
    assert_promises_kept: AssertPromisesKept,
) -> None:
    payer = await new_wallet(balance="50")
    for placed in [await hold(payer, "10") for _ in range(4)]:
        await expire(placed)
    async with open_client(hold_release_seconds=0.01), open_client(hold_release_seconds=0.01):

        async def is_released() -> bool:
            return await money(client, payer) == ("50.00", "0.00", "50.00", 10)

        await eventually(is_released)
    events = await sql("SELECT count(*) FROM wallet.outbox WHERE event_type = 'HOLD_EXPIRED'")
    assert events[0][0] == 4
    await assert_promises_kept()


async def test_of_many_captures_and_voids_of_one_hold_at_once_one_wins(
    client: AsyncClient,
    open_client: OpenClient,
    new_wallet: NewWallet,
    hold: Place,
    sql: Sql,
    assert_promises_kept: AssertPromisesKept,
) -> None:
    """midaz#1519, midaz PR 2492: both of two commits applied; a commit raced a cancel."""
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    async with open_client() as other:
        for _ in range(3):
            placed = await hold(payer, "10", to_wallet_id=shop["id"])
            acts = [act(api, placed) for api in (client, other) for act in (capture, void) for _ in range(3)]
            replies = await asyncio.gather(*acts)
            codes = Counter(reply.json().get("code", "done") for reply in replies)
            assert codes == {"done": 1, "hold-not-open": 11}
            terminal = "SELECT count(*) FROM wallet.outbox WHERE payload -> 'hold' ->> 'id' = $1 AND event_type <> $2"
            assert (await sql(terminal, placed["id"], "HOLD_CREATED"))[0][0] == 1
    assert (await money(client, payer))[1] == "0.00"
    await assert_promises_kept()


async def test_a_hold_that_expires_while_it_is_captured_has_one_end(
    client: AsyncClient,
    open_client: OpenClient,
    new_wallet: NewWallet,
    hold: Place,
    sql: Sql,
    eventually: Callable[..., Awaitable[Any]],
    assert_promises_kept: AssertPromisesKept,
) -> None:
    payer = await new_wallet(balance="50")
    holds = [await hold(payer, "1") for _ in range(20)]
    async with open_client(hold_release_seconds=0.005) as releasing:
        overdue = "UPDATE wallet.holds SET expires_at = clock_timestamp() + interval '20 milliseconds'"
        await sql(overdue)
        replies = await asyncio.gather(*(capture(releasing, placed) for placed in holds for _ in range(2)))

        async def is_over() -> bool:
            return (await money(client, payer))[1] == "0.00"

        await eventually(is_over)
    done = sum(reply.status_code == 200 for reply in replies)
    ends = await sql("SELECT event_type, count(*) FROM wallet.outbox WHERE event_type LIKE 'HOLD%' GROUP BY 1")
    counts = {row["event_type"]: row["count"] for row in ends}
    assert counts.get("HOLD_CAPTURED", 0) == done
    assert counts.get("HOLD_CAPTURED", 0) + counts.get("HOLD_EXPIRED", 0) == 20
    await assert_promises_kept()


@pytest.mark.parametrize(
    ("act", "undo", "code"), [("freeze", "unfreeze", "wallet-frozen"), ("close", "reopen", "wallet-closed")]
)
async def test_a_capture_for_a_receiver_that_cannot_receive_leaves_the_hold_open(
    client: AsyncClient,
    new_wallet: NewWallet,
    hold: Place,
    assert_problem: AssertProblem,
    act: str,
    undo: str,
    code: str,
) -> None:
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    placed = await hold(payer, "30", to_wallet_id=shop["id"])
    body = {"reason": "a test", **({"blocks": "in"} if act == "freeze" else {})}
    assert (await client.post(f"/wallets/{shop['id']}/{act}", json=body)).status_code == 200
    refused = assert_problem(await capture(client, placed), 409, code)
    # The hold has one receiver: another wallet is no way out.
    assert refused["detail"].startswith("hold_id: ")
    assert refused["detail"].endswith({"freeze": "Send a new request when it is unfrozen."}.get(act, "it is reopened."))
    assert "another" not in refused["detail"]
    assert (await client.get(f"/holds/{placed['id']}")).json()["status"] == "open"
    assert (await client.post(f"/wallets/{shop['id']}/{undo}", json={"reason": "a test"})).status_code == 200
    assert (await capture(client, placed)).status_code == 200


async def test_a_frozen_wallets_holds_can_be_voided_and_expire(
    client: AsyncClient,
    open_client: OpenClient,
    new_wallet: NewWallet,
    hold: Place,
    expire: Expire,
    eventually: Callable[..., Awaitable[Any]],
    assert_promises_kept: AssertPromisesKept,
) -> None:
    payer = await new_wallet(balance="50")
    voided, overdue = await hold(payer, "10"), await hold(payer, "20")
    freeze = {"blocks": "all", "reason": "a test"}
    assert (await client.post(f"/wallets/{payer['id']}/freeze", json=freeze)).status_code == 200
    assert (await void(client, voided)).status_code == 200
    await expire(overdue)
    async with open_client(hold_release_seconds=0.01):

        async def is_released() -> bool:
            return (await money(client, payer))[1] == "0.00"

        await eventually(is_released)
    assert (await client.get(f"/wallets/{payer['id']}")).json()["blocks"] == "all"
    await assert_promises_kept()


async def test_the_state_of_a_hold_is_the_same_in_replies_events_and_the_ledger(
    client: AsyncClient, new_wallet: NewWallet, hold: Place, sql: Sql
) -> None:
    """blnk#293: what was committed still said inflight."""
    payer, shop = await new_wallet(balance="50"), await new_wallet("shop")
    placed = await hold(payer, "30", to_wallet_id=shop["id"], capture_max="35")
    told = [placed]
    told += [(await capture(client, placed, amount=amount, final=False)).json()["hold"] for amount in ("5", "30")]
    read = (await client.get(f"/holds/{placed['id']}")).json()
    assert {name: read[name] for name in placed} == told[-1]
    events = await sql("SELECT payload FROM wallet.outbox WHERE event_type LIKE 'HOLD%' ORDER BY id")
    assert [json.loads(row["payload"])["hold"] for row in events] == told
    details = await sql(
        "SELECT details FROM wallet.wallet_transactions WHERE details IS NOT NULL ORDER BY wallet_version"
    )
    assert [json.loads(row["details"])["hold"] for row in details] == told
    assert len(read["transaction_ids"]) == 3


async def test_holds_are_listed_page_by_page(client: AsyncClient, new_wallet: NewWallet, hold: Place) -> None:
    payer = await new_wallet(balance="50")
    ids = [(await hold(payer, "1"))["id"] for _ in range(5)]
    path, found = f"/wallets/{payer['id']}/holds?limit=2&order=asc&status=open", []
    cursor = ""
    while cursor is not None:
        page = (await client.get(path + (f"&cursor={cursor}" if cursor else ""))).json()
        found += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert found == ids


async def test_a_cursor_of_holds_is_of_one_wallet_status_and_order(
    client: AsyncClient, new_wallet: NewWallet, hold: Place, assert_problem: AssertProblem
) -> None:
    """stack#43: the next pages were not filtered."""
    wallets = [await new_wallet(balance="50") for _ in range(2)]
    for placed in [await hold(wallet, "1") for wallet in wallets for _ in range(4)][::2]:
        await void(client, placed)
    lists = [
        (f"/wallets/{wallet['id']}/holds", {**status, "order": order})
        for wallet in wallets
        for status in ({}, {"status": "open"}, {"status": "voided"})
        for order in ("asc", "desc")
    ]
    cursors = [(await client.get(path, params={**query, "limit": 1})).json()["next_cursor"] for path, query in lists]
    assert all(cursors)
    for (place, (path, query)), (number, cursor) in product(enumerate(lists), enumerate(cursors)):
        reply = await client.get(path, params={**query, "cursor": cursor, "limit": 7})
        if number == place:
            wanted = {query["status"]} if "status" in query else {"open", "voided"}
            assert {item["status"] for item in reply.json()["items"]} == wanted
        else:
            problem = assert_problem(reply, 422, "validation-error")
            assert [error["field"] for error in problem["errors"]] == ["cursor"]


async def test_a_hold_or_wallet_that_is_not_there_is_not_found(
    client: AsyncClient, assert_problem: AssertProblem
) -> None:
    assert_problem(await client.get(f"/holds/{UNKNOWN}"), 404, "hold-not-found")
    for act in ("capture", "void"):
        assert_problem(await client.post(f"/holds/{UNKNOWN}/{act}", json={}), 404, "hold-not-found")
    assert_problem(await client.get(f"/wallets/{UNKNOWN}/holds"), 404, "wallet-not-found")
    assert_problem(await client.post(f"/wallets/{UNKNOWN}/holds", json={"amount": "1"}), 404, "wallet-not-found")
