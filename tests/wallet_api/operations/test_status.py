"""Freeze, unfreeze, close and reopen: what each does, and what still works while a wallet is frozen or closed."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from httpx import AsyncClient, Response

from common.access.caller import OPS_WRITE, SCOPES, WALLETS_READ, WALLETS_WRITE
from support.callers import believe_callers, credentials
from support.limits import LIMITLESS
from wallet_api.operations.catalogue import ALL_OPERATIONS

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]
Check = Callable[[], Awaitable[None]]

FULL = "92233720368547758.07"
STATES = ["active", "in", "out", "all", "closed"]
"""A wallet's status; of a frozen one, what it blocks."""


async def act(client: AsyncClient, wallet: Json, name: str, **body: Any) -> Json:
    reply = await client.post(f"/wallets/{wallet['id']}/{name}", json={"reason": "a test", **body})
    assert reply.status_code == 200, reply.text
    done: Json = reply.json()
    return done


async def bring(client: AsyncClient, wallet: Json, state: str, **sweep: str) -> None:
    """Bring an active wallet into the state."""
    if state == "closed":
        await act(client, wallet, "close", **sweep)
    elif state != "active":
        await act(client, wallet, "freeze", blocks=state)


async def place(client: AsyncClient, wallet: Json, receiver: Json, amount: str = "1", **fields: Any) -> str:
    """Place a hold, and return its path."""
    body = {"amount": amount, "to_wallet_id": receiver["id"], **fields}
    placed = await client.post(f"/wallets/{wallet['id']}/holds", json=body)
    assert placed.status_code == 201, placed.text
    return placed.headers["location"]


async def transfer(client: AsyncClient, sender: Json, receiver: Json) -> str:
    """Send 1, and return the transaction's path."""
    body = {"amount": "1", "to_wallet_id": receiver["id"]}
    sent = await client.post(f"/wallets/{sender['id']}/transfer", json=body)
    return f"/transactions/{sent.json()['transaction_id']}"


async def read(client: AsyncClient, wallet: Json) -> Json:
    found: Json = (await client.get(f"/wallets/{wallet['id']}")).json()
    return found


async def test_a_freeze_is_one_version_one_entry_without_money_and_one_event(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_promises_kept: Check
) -> None:
    wallet = await new_wallet(balance="50")
    body = {"blocks": "out", "reason": "reported as stolen", "reference": "ticket 12", "metadata": {"by": "desk"}}
    reply = await client.post(f"/wallets/{wallet['id']}/freeze", json=body)
    assert (reply.status_code, reply.headers["etag"]) == (200, '"3"')
    frozen = reply.json()
    assert {name: frozen[name] for name in frozen if name not in {"transaction_id", "created_at"}} == {
        "type": "FREEZE",
        "wallet_id": wallet["id"],
        "counterparty_wallet_id": None,
        "amount": None,
        "currency": "EUR",
        "balance": "50.00",
        "held": "0.00",
        "available": "50.00",
        "version": 3,
        "reference": "ticket 12",
        "external_id": None,
        "metadata": {"by": "desk"},
        "blocks": "out",
        "reason": "reported as stolen",
    }
    found = await read(client, wallet)
    changed = {"status": "frozen", "blocks": "out", "version": 3, "updated_at": frozen["created_at"]}
    assert found == {**wallet, **changed}
    (entry, _) = (await client.get(f"/wallets/{wallet['id']}/transactions")).json()["items"]
    assert (entry["type"], entry["amount"], entry["balance_after"]) == ("FREEZE", "0.00", "50.00")
    (row,) = await sql("SELECT payload FROM wallet.outbox WHERE event_type = 'WALLET_FROZEN'")
    event = json.loads(row["payload"])
    (change,) = event["wallets"]
    assert (event["blocks"], event["reason"], event["reference"]) == ("out", "reported as stolen", "ticket 12")
    assert (change["direction"], change["balance_after"], change["version"]) == (None, "50.00", 3)
    assert "amount" not in event
    (entry,) = await sql("SELECT * FROM wallet.wallet_transactions WHERE type = 'FREEZE'")
    assert json.loads(entry["details"]) == {"blocks": "out", "reason": "reported as stolen"}
    await assert_promises_kept()


async def test_each_change_of_the_status_has_its_event_and_leads_back_to_an_active_wallet(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_promises_kept: Check
) -> None:
    wallet = await new_wallet()
    steps: list[tuple[str, Json, str, str | None]] = [
        ("freeze", {"blocks": "all"}, "frozen", "all"),
        ("freeze", {"blocks": "in"}, "frozen", "in"),
        ("unfreeze", {}, "active", None),
        ("close", {}, "closed", None),
        ("reopen", {}, "active", None),
        ("freeze", {"blocks": "out"}, "frozen", "out"),
        ("close", {}, "closed", None),
        ("reopen", {}, "active", None),
    ]
    for version, (name, body, status, blocks) in enumerate(steps, start=2):
        assert (await act(client, wallet, name, **body))["version"] == version
        found = await read(client, wallet)
        assert (found["status"], found["blocks"], found["version"]) == (status, blocks, version)
    rows = await sql("SELECT event_type FROM wallet.outbox ORDER BY id OFFSET 1")
    names = {"freeze": "FROZEN", "unfreeze": "UNFROZEN", "close": "CLOSED", "reopen": "REOPENED"}
    assert [row["event_type"] for row in rows] == [f"WALLET_{names[name]}" for name, *_ in steps]
    await assert_promises_kept()


ALLOWED = {
    "fund": {"active", "out"},
    "withdraw": {"active", "in"},
    "transfer": {"active", "in"},
    "split": {"active", "in"},
    "receive": {"active", "out"},
    "receive of a split": {"active", "out"},
    "receive from a bound caller": {"active", "out"},
    "holds": {"active", "in"},
    "receive a hold": {"active", "out"},
    "capture": {"active", "in", "out"},
    "receive a capture": {"active", "out"},
    "void": {"active", "in", "out", "all"},
    "reverse": {"active", "in"},
    "receive a reversal": {"active", "out"},
    "receive a reversal from a bound caller": {"active", "out"},
    "limits": {"active", "in", "out", "all"},
    "freeze": {"active", "in", "out", "all"},
    "unfreeze": {"in", "out", "all"},
    "close": {"active", "in", "out", "all"},
    "close with a sweep": {"active", "in"},
    "receive a sweep": {"active", "out"},
    "reopen": {"closed"},
}
"""In which states each operation works. docs/wallet-status.md has the same table."""


def test_the_table_has_each_operation() -> None:
    assert {operation.name for operation in ALL_OPERATIONS} <= ALLOWED.keys()


@pytest.mark.parametrize("state", STATES)
async def test_what_works_in_each_state_is_what_the_table_says(
    open_client: OpenClient,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    sql: Sql,
    assert_promises_kept: Check,
) -> None:
    believe_callers(monkeypatch)
    async with open_client() as client:
        client.headers.update(credentials("desk"))

        async def new(balance: str | None = None, user_id: str = "ada") -> Json:
            made: Json = (await client.post("/wallets", json={"user_id": user_id, "currency": "EUR"})).json()
            if balance:
                await client.post(f"/wallets/{made['id']}/fund", json={"amount": balance})
            return made

        why = {"reason": "a test"}
        refused_with = {"closed": "wallet-closed"}.get(state, "wallet-frozen")
        for name, allowed in ALLOWED.items():
            other, bank = await new("5", "bob"), await new()
            wallet = await new(None if name in {"close", "reopen"} else "5")
            its_hold = await place(client, wallet, other) if name in {"capture", "void"} else ""
            others_hold = await place(client, other, wallet) if name == "receive a capture" else ""
            if its_hold and state == "closed":
                assert (await client.post(f"{its_hold}/void", json={})).status_code == 200
            both_ways = ((other, wallet), (wallet, other)) if "revers" in name else ()
            received, sent = [await transfer(client, *sides) for sides in both_ways] or ["", ""]
            sweep = {"sweep_to_wallet_id": bank["id"]}
            await bring(client, wallet, state, **sweep)
            to_it, to_other = {"to_wallet_id": wallet["id"]}, {"to_wallet_id": other["id"]}
            its_path, others_path = f"/wallets/{wallet['id']}", f"/wallets/{other['id']}"
            requests: dict[str, tuple[str, Json]] = {
                "fund": (f"{its_path}/fund", {"amount": "1"}),
                "withdraw": (f"{its_path}/withdraw", {"amount": "1"}),
                "transfer": (f"{its_path}/transfer", {"amount": "1", **to_other}),
                "split": (f"{its_path}/split", {"legs": [{"amount": "1", **to_other}]}),
                "receive of a split": (f"{others_path}/split", {"legs": [{"amount": "1", **to_it}]}),
                "receive": (f"{others_path}/transfer", {"amount": "1", **to_it}),
                "receive from a bound caller": (f"{others_path}/transfer", {"amount": "1", **to_it}),
                "holds": (f"{its_path}/holds", {"amount": "1", **to_other}),
                "receive a hold": (f"{others_path}/holds", {"amount": "1", **to_it}),
                "capture": (f"{its_hold}/capture", {}),
                "receive a capture": (f"{others_hold}/capture", {}),
                "void": (f"{its_hold}/void", {}),
                "reverse": (f"{received}/reverse", why),
                "receive a reversal": (f"{sent}/reverse", why),
                "receive a reversal from a bound caller": (f"{sent}/reverse", why),
                "limits": (f"{its_path}/limits", LIMITLESS),
                "freeze": (f"{its_path}/freeze", {"blocks": "all", **why}),
                "unfreeze": (f"{its_path}/unfreeze", why),
                "close": (f"{its_path}/close", why),
                "close with a sweep": (f"{its_path}/close", {**sweep, **why}),
                "receive a sweep": (f"{others_path}/close", {"sweep_to_wallet_id": wallet["id"], **why}),
                "reopen": (f"{its_path}/reopen", why),
            }
            path, body = requests[name]
            headers = credentials("key-of-bob", "bob") if name.endswith("from a bound caller") else {}
            before = await sql("SELECT * FROM wallet.wallets ORDER BY id")
            method = "PUT" if name == "limits" else "POST"
            reply = await client.request(method, path, json=body, headers={"If-Match": "*", **headers})
            expected = {
                "unfreeze": "wallet-not-frozen",
                "reopen": "wallet-not-closed",
                "receive from a bound caller": "receiver-unavailable",
                "receive a reversal from a bound caller": "receiver-unavailable",
                # A closed wallet has no open hold.
                **({"capture": "hold-not-open", "void": "hold-not-open"} if state == "closed" else {}),
            }.get(name, refused_with)
            assert reply.json().get("code", "done") == ("done" if state in allowed else expected), (name, reply.text)
            after = await sql("SELECT * FROM wallet.wallets ORDER BY id")
            assert (before == after) == (state not in allowed), name
    await assert_promises_kept()


async def test_a_frozen_or_closed_wallet_is_read_as_before(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet(balance="5")
    await bring(client, wallet, "all")
    assert (await read(client, wallet))["balance"] == "5.00"
    assert len((await client.get(f"/wallets/{wallet['id']}/transactions")).json()["items"]) == 2
    listed = (await client.get("/users/ada/wallets")).json()["items"]
    assert [(item["status"], item["blocks"]) for item in listed] == [("frozen", "all")]


async def test_a_wallet_that_was_frozen_by_sql_blocks_all_and_can_be_unfrozen(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet(balance="5")
    await sql("UPDATE wallet.wallets SET status = 'frozen' WHERE id = $1", UUID(wallet["id"]))
    assert (await read(client, wallet))["blocks"] == "all"
    for name in ("fund", "withdraw"):
        refused = await client.post(f"/wallets/{wallet['id']}/{name}", json={"amount": "1"})
        assert assert_problem(refused, 409, "wallet-frozen")["blocks"] == "all"
    await act(client, wallet, "unfreeze")
    assert (await read(client, wallet))["status"] == "active"


async def test_a_wallet_with_money_is_not_closed_and_the_refusal_says_how_much_it_has(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet(balance="12.50")
    refused = await client.post(f"/wallets/{wallet['id']}/close", json={"reason": "left"})
    problem = assert_problem(refused, 409, "wallet-not-empty")
    assert (problem["balance"], problem["open_holds"], problem["currency"]) == ("12.50", "0.00", "EUR")
    assert await read(client, wallet) == wallet


async def test_a_wallet_with_an_open_hold_is_not_closed_with_or_without_a_sweep_and_the_refusal_says_what_is_held(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet, bank = await new_wallet(balance="12.50"), await new_wallet("bob")
    hold = await place(client, wallet, bank, "2.50")
    before = await read(client, wallet)
    for sweep in ({}, {"sweep_to_wallet_id": bank["id"]}):
        refused = await client.post(f"/wallets/{wallet['id']}/close", json={"reason": "left", **sweep})
        problem = assert_problem(refused, 409, "wallet-not-empty")
        assert (problem["balance"], problem["open_holds"], problem["currency"]) == ("12.50", "2.50", "EUR")
    assert await read(client, wallet) == before
    assert (await client.post(f"{hold}/void", json={})).status_code == 200
    closed = await act(client, wallet, "close", sweep_to_wallet_id=bank["id"])
    assert (closed["sweep"]["amount"], closed["held"]) == ("12.50", "0.00")


async def test_a_sweep_first_releases_holds_that_are_overdue(
    open_client: OpenClient, sql: Sql, assert_promises_kept: Check
) -> None:
    # Its releaser never comes by.
    async with open_client(hold_release_seconds=86_400) as client:
        wallet, bank = [
            (await client.post("/wallets", json={"user_id": user_id, "currency": "EUR"})).json()
            for user_id in ("ada", "bob")
        ]
        await client.post(f"/wallets/{wallet['id']}/fund", json={"amount": "12.50"})
        for _ in range(2):
            await place(client, wallet, bank, "2.50")
        await sql("UPDATE wallet.holds SET expires_at = clock_timestamp()")
        closed = await act(client, wallet, "close", sweep_to_wallet_id=bank["id"])
        assert (closed["sweep"]["amount"], closed["held"], closed["version"]) == ("12.50", "0.00", 8)
    events = await sql("SELECT event_type FROM wallet.outbox ORDER BY id DESC LIMIT 4")
    expected = ["HOLD_EXPIRED", "HOLD_EXPIRED", "TRANSFER_DONE", "WALLET_CLOSED"]
    assert [row["event_type"] for row in reversed(events)] == expected
    await assert_promises_kept()


async def test_a_capture_on_a_wallet_that_blocks_out_may_take_more_than_the_hold_and_one_that_blocks_all_keeps_it_open(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, assert_promises_kept: Check
) -> None:
    wallet, shop = await new_wallet(balance="5"), await new_wallet("shop")
    hold = await place(client, wallet, shop, capture_max="3")
    await act(client, wallet, "freeze", blocks="all")
    refused = await client.post(f"{hold}/capture", json={"amount": "3"})
    assert assert_problem(refused, 409, "wallet-frozen")["blocks"] == "all"
    assert (await client.get(hold)).json()["status"] == "open"
    await act(client, wallet, "freeze", blocks="out")
    assert (await client.post(f"{hold}/capture", json={"amount": "3"})).status_code == 200
    found = await read(client, wallet)
    assert (found["balance"], found["held"], found["blocks"]) == ("2.00", "0.00", "out")
    await assert_promises_kept()


async def test_a_sweep_is_a_transfer_of_all_there_is_before_the_wallet_is_closed_in_the_same_transaction(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql, assert_promises_kept: Check
) -> None:
    wallet, bank = await new_wallet(balance="12.50"), await new_wallet("bob")
    closed = await act(client, wallet, "close", sweep_to_wallet_id=bank["id"], reference="ticket 12")
    assert (closed["type"], closed["balance"], closed["version"]) == ("CLOSE", "0.00", 4)
    sweep = closed["sweep"]
    assert (sweep["amount"], sweep["to_wallet_id"]) == ("12.50", bank["id"])
    rows = await sql("SELECT event_type, payload, xmin FROM wallet.outbox ORDER BY id OFFSET 3")
    assert [row["event_type"] for row in rows] == ["TRANSFER_DONE", "WALLET_CLOSED"]
    assert len({row["xmin"] for row in rows}) == 1
    transfer, closing = (json.loads(row["payload"]) for row in rows)
    assert (transfer["transaction_id"], transfer["reference"]) == (sweep["transaction_id"], "ticket 12")
    assert closing["sweep"] == sweep
    assert ((await read(client, bank))["balance"], (await read(client, wallet))["status"]) == ("12.50", "closed")
    await assert_promises_kept()


async def test_a_refused_sweep_changes_nothing_and_names_its_field(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet, dollars, full = await new_wallet(balance="5"), await new_wallet(currency="USD"), await new_wallet()
    await client.post(f"/wallets/{full['id']}/fund", json={"amount": FULL})
    path, unknown = f"/wallets/{wallet['id']}/close", "0198c2a5-0000-7000-8000-000000000001"
    for target, status, code in [
        (wallet["id"], 422, "same-wallet"),
        (unknown, 404, "wallet-not-found"),
        (dollars["id"], 422, "currency-mismatch"),
        (full["id"], 422, "balance-limit-exceeded"),
    ]:
        refused = await client.post(path, json={"reason": "left", "sweep_to_wallet_id": target})
        problem = assert_problem(refused, status, code)
        assert code == "balance-limit-exceeded" or problem["detail"].startswith("sweep_to_wallet_id:")
    assert await read(client, wallet) == wallet


async def test_an_empty_wallet_needs_no_sweep(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet, bank = await new_wallet(), await new_wallet("bob")
    closed = await act(client, wallet, "close", sweep_to_wallet_id=bank["id"])
    assert (closed["sweep"], closed["version"]) == (None, 2)
    assert await read(client, bank) == bank


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": None}, {"reason": "x" * 256}])
async def test_a_change_of_the_status_needs_a_reason(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, body: Json
) -> None:
    wallet = await new_wallet()
    for name, more in [("freeze", {"blocks": "in"}), ("unfreeze", {}), ("close", {}), ("reopen", {})]:
        refused = await client.post(f"/wallets/{wallet['id']}/{name}", json={**body, **more})
        assert [error["field"] for error in assert_problem(refused, 422, "validation-error")["errors"]] == ["reason"]


async def test_a_sweep_needs_the_scope_of_a_transfer_too(
    open_client: OpenClient, monkeypatch: pytest.MonkeyPatch, assert_problem: AssertProblem
) -> None:
    believe_callers(monkeypatch)
    async with open_client() as client:
        admin, desk = credentials("admin"), credentials("desk", scopes=[OPS_WRITE])
        made = [
            (await client.post("/wallets", json={"user_id": "ada", "currency": "EUR"}, headers=admin)).json()["id"]
            for _ in range(2)
        ]
        body = {"reason": "left", "sweep_to_wallet_id": made[1]}
        refused = await client.post(f"/wallets/{made[0]}/close", json=body, headers=desk)
        assert_problem(refused, 403, "forbidden")
        assert WALLETS_WRITE in refused.headers["www-authenticate"]
        closed = await client.post(f"/wallets/{made[0]}/close", json={"reason": "left"}, headers=desk)
        assert closed.status_code == 200


async def test_a_setting_lets_owners_freeze_their_own_wallets_and_never_lift_a_freeze_of_the_operators(
    open_client: OpenClient, monkeypatch: pytest.MonkeyPatch, assert_problem: AssertProblem
) -> None:
    believe_callers(monkeypatch)
    ada = credentials("key-of-ada", "ada", [WALLETS_READ, WALLETS_WRITE])
    desk = credentials("desk", scopes=SCOPES)
    async with open_client(owner_operations="freeze") as client:
        wallet, other = [
            (await client.post("/wallets", json={"user_id": user_id, "currency": "EUR"}, headers=desk)).json()["id"]
            for user_id in ("ada", "bob")
        ]

        async def freeze(blocks: str, headers: dict[str, str], wallet_id: str = wallet) -> Response:
            body = {"blocks": blocks, "reason": "lost my phone"}
            return await client.post(f"/wallets/{wallet_id}/freeze", json=body, headers=headers)

        assert (await freeze("out", ada)).status_code == 200
        assert (await freeze("all", ada)).status_code == 200
        problem = assert_problem(await freeze("out", ada), 409, "wallet-frozen")
        assert problem["detail"].endswith("blocks all. Send a value that blocks no less.")
        assert (await freeze("in", desk)).status_code == 200
        assert_problem(await freeze("out", ada), 409, "wallet-frozen")
        assert_problem(await freeze("out", ada, other), 404, "wallet-not-found")
        unfrozen = await client.post(f"/wallets/{wallet}/unfreeze", json={"reason": "found"}, headers=ada)
        assert_problem(unfrozen, 403, "forbidden")


async def test_owners_that_may_close_and_reopen_do_not_lift_a_freeze_of_the_operators(
    open_client: OpenClient, monkeypatch: pytest.MonkeyPatch, assert_problem: AssertProblem
) -> None:
    believe_callers(monkeypatch)
    ada = credentials("key-of-ada", "ada", [WALLETS_READ, WALLETS_WRITE])
    desk = credentials("desk", scopes=SCOPES)
    async with open_client(owner_operations="close,reopen") as client:
        created = await client.post("/wallets", json={"user_id": "ada", "currency": "EUR"}, headers=ada)
        path = f"/wallets/{created.json()['id']}"
        await client.post(f"{path}/freeze", json={"blocks": "in", "reason": "a warrant"}, headers=desk)
        problem = assert_problem(
            await client.post(f"{path}/close", json={"reason": "left"}, headers=ada), 409, "wallet-frozen"
        )
        assert problem["blocks"] == "in"
        for act in ("unfreeze", "freeze"):
            body = {"reason": "settled", **({"blocks": "out"} if act == "freeze" else {})}
            assert (await client.post(f"{path}/{act}", json=body, headers=desk)).status_code == 200
        assert (await client.post(f"{path}/close", json={"reason": "settled"}, headers=desk)).status_code == 200
        assert (await client.post(f"{path}/reopen", json={"reason": "back"}, headers=ada)).status_code == 200
        assert (await client.post(f"{path}/close", json={"reason": "left"}, headers=ada)).status_code == 200


async def test_after_a_freeze_no_transfer_in_flight_takes_money_out(
    open_client: OpenClient,
    patient: dict[str, float],
    eventually: Callable[..., Awaitable[Any]],
    sql: Sql,
    assert_promises_kept: Check,
) -> None:
    """Transfers by two processes, against freezes: each is before a freeze, or after it and refused."""
    async with open_client(**patient) as one, open_client(**patient) as two:
        sender, receiver = [
            (await one.post("/wallets", json={"user_id": "ada", "currency": "EUR"})).json()["id"] for _ in range(2)
        ]
        await one.post(f"/wallets/{sender}/fund", json={"amount": "1000"})
        outcomes: Counter[str] = Counter()
        is_over = False

        async def send(client: AsyncClient) -> None:
            while not is_over:
                body = {"to_wallet_id": receiver, "amount": "0.01"}
                reply = await client.post(f"/wallets/{sender}/transfer", json=body)
                outcomes[reply.json().get("code", "done")] += 1

        async def until_more(outcome: str) -> None:
            before = outcomes[outcome]

            async def is_more() -> bool:
                return outcomes[outcome] >= before + 6

            await eventually(is_more)

        async with asyncio.TaskGroup() as tasks:
            for client in (one, two) * 3:
                tasks.create_task(send(client))
            for _ in range(4):
                await until_more("done")
                frozen = await one.post(f"/wallets/{sender}/freeze", json={"blocks": "out", "reason": "a test"})
                assert frozen.status_code == 200
                await until_more("wallet-frozen")
                assert (await two.get(f"/wallets/{sender}")).json()["balance"] == frozen.json()["balance"]
                assert (await one.post(f"/wallets/{sender}/unfreeze", json={"reason": "a test"})).status_code == 200
            is_over = True
    assert outcomes.keys() == {"done", "wallet-frozen"}
    # Between a freeze and the next unfreeze the ledger has no money that left the wallet.
    left = await sql(
        """
        SELECT FROM (
            SELECT amount_minor, count(*) FILTER (WHERE type = 'FREEZE') OVER chain
                - count(*) FILTER (WHERE type = 'UNFREEZE') OVER chain AS is_frozen
            FROM wallet.wallet_transactions WHERE wallet_id = $1 WINDOW chain AS (ORDER BY wallet_version)
        ) AS entries WHERE is_frozen > 0 AND amount_minor < 0
        """,
        UUID(sender),
    )
    assert left == []
    await assert_promises_kept()
