"""Withdraw: money leaves a wallet and the system."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from httpx import AsyncClient, Response

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]


async def test_a_withdrawal_is_answered_with_the_balance_that_is_left(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    wallet = await new_wallet(balance="50")
    body = {"amount": "12.5", "currency": "EUR", "reference": "payout 17", "metadata": {"bank": "B"}}
    reply = await client.post(f"/wallets/{wallet['id']}/withdraw", json=body)
    assert reply.status_code == 200
    assert reply.headers["etag"] == '"3"'
    withdrawn = reply.json()
    assert {name: withdrawn[name] for name in withdrawn if name not in {"transaction_id", "created_at"}} == {
        "type": "WITHDRAW",
        "wallet_id": wallet["id"],
        "counterparty_wallet_id": None,
        "amount": "12.50",
        "currency": "EUR",
        "balance": "37.50",
        "held": "0.00",
        "available": "37.50",
        "version": 3,
        "reference": "payout 17",
        "external_id": None,
        "metadata": {"bank": "B"},
    }
    (entry, _) = (await client.get(f"/wallets/{wallet['id']}/transactions")).json()["items"]
    assert (entry["type"], entry["amount"], entry["balance_after"]) == ("WITHDRAW", "-12.50", "37.50")


async def test_what_is_withdrawn_goes_to_the_world_account_and_becomes_an_event(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql
) -> None:
    wallet = await new_wallet(balance="50")
    await client.post(f"/wallets/{wallet['id']}/withdraw", json={"amount": "50"})
    rows = await sql("SELECT wallet_id IS NULL, amount_minor FROM wallet.wallet_transactions WHERE type = 'WITHDRAW'")
    assert sorted(tuple(row) for row in rows) == [(False, -5000), (True, 5000)]
    (row,) = await sql("SELECT payload FROM wallet.outbox WHERE event_type = 'WALLET_WITHDRAWN'")
    event = json.loads(row["payload"])
    (change,) = event["wallets"]
    assert (event["amount"], change["direction"], change["balance_after"], change["version"]) == (
        "50.00",
        "out",
        "0.00",
        3,
    )


async def test_more_than_the_balance_cannot_be_withdrawn_and_changes_nothing(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem
) -> None:
    wallet = await new_wallet(balance="50")
    path = f"/wallets/{wallet['id']}"
    refused = await client.post(f"{path}/withdraw", json={"amount": "50.01"})
    problem = assert_problem(refused, 422, "insufficient-funds")
    assert (problem["available"], problem["needed"]) == ("50.00", "50.01")
    assert (await client.get(path)).json() == wallet


async def test_many_withdrawals_at_once_never_take_more_than_there_is(
    client: AsyncClient, new_wallet: NewWallet, assert_promises_kept: Callable[[], Awaitable[None]]
) -> None:
    wallet = await new_wallet(balance="10")
    path = f"/wallets/{wallet['id']}"
    replies = await asyncio.gather(*(client.post(f"{path}/withdraw", json={"amount": "3"}) for _ in range(8)))
    assert sorted(reply.status_code for reply in replies) == [200] * 3 + [422] * 5
    assert (await client.get(path)).json()["balance"] == "1.00"
    await assert_promises_kept()
