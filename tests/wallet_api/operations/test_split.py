"""Split: one payment to several wallets."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from httpx import AsyncClient, Response
from hypothesis import given
from hypothesis import strategies as st

from common.access.caller import ANONYMOUS, SCOPES, Caller
from common.money import MINOR_MAX, to_major
from common.problems import Problem
from wallet_api.errors import InsufficientFunds
from wallet_api.operations.errors import ReceiverUnavailable
from wallet_api.operations.operation import LedgerTransaction, State
from wallet_api.operations.split import RECEIVERS_MAX, REST, Split, SplitBody
from wallet_api.wallet import Wallet

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
AssertProblem = Callable[[Response, int, str], Json]
Wallets = dict[str, Json]

PAYER = UUID(int=100)
RECEIVERS = [UUID(int=number) for number in range(1, RECEIVERS_MAX + 1)]


@pytest.fixture
async def wallets(new_wallet: NewWallet) -> Wallets:
    """A payer with 50.00, and two receivers."""
    return {"ada": await new_wallet("ada", balance="50"), "bob": await new_wallet("bob"), "cy": await new_wallet("cy")}


def leg(wallet: Json, amount: Any = "1") -> Json:
    return {"to_wallet_id": wallet["id"], "amount": amount}


async def test_a_split_is_answered_with_the_whole_amount_and_the_payers_balance(
    client: AsyncClient, wallets: Wallets
) -> None:
    legs = [leg(wallets["bob"], "12.5"), leg(wallets["cy"], 10)]
    body = {"legs": legs, "currency": "EUR", "reference": "shares", "metadata": {"order": "4711"}}
    reply = await client.post(f"/wallets/{wallets['ada']['id']}/split", json=body)
    assert reply.status_code == 200
    assert reply.headers["etag"] == '"3"'
    paid = reply.json()
    assert {name: paid[name] for name in paid if name not in {"transaction_id", "created_at"}} == {
        "type": "SPLIT",
        "wallet_id": wallets["ada"]["id"],
        "counterparty_wallet_id": None,
        "amount": "22.50",
        "currency": "EUR",
        "balance": "27.50",
        "held": "0.00",
        "available": "27.50",
        "version": 3,
        "reference": "shares",
        "external_id": None,
        "metadata": {"order": "4711"},
    }
    (received,) = (await client.get(f"/wallets/{wallets['cy']['id']}/transactions")).json()["items"]
    assert (received["type"], received["amount"], received["balance_after"]) == ("SPLIT", "10.00", "10.00")
    assert received["counterparty_wallet_id"] == wallets["ada"]["id"]


async def test_a_split_is_one_ledger_transaction_and_one_event_with_each_wallet_once(
    client: AsyncClient, wallets: Wallets, sql: Sql, assert_promises_kept: Callable[[], Awaitable[None]]
) -> None:
    ada, bob, cy = wallets.values()
    body = {"legs": [leg(cy, REST), leg(bob, "0.01")], "amount": "30"}
    split = (await client.post(f"/wallets/{ada['id']}/split", json=body)).json()
    rows = await sql(
        "SELECT entry, wallet_id::text, counterparty_wallet_id::text, amount_minor FROM wallet.wallet_transactions"
        " WHERE transaction_id = $1 ORDER BY entry",
        UUID(split["transaction_id"]),
    )
    assert [tuple(row) for row in rows] == [
        (1, ada["id"], None, -3000),
        (2, cy["id"], ada["id"], 2999),
        (3, bob["id"], ada["id"], 1),
    ]
    legs = (await client.get(f"/transactions/{split['transaction_id']}")).json()["legs"]
    assert [(item["wallet_id"], item["amount"]) for item in legs] == [
        (ada["id"], "-30.00"),
        (cy["id"], "29.99"),
        (bob["id"], "0.01"),
    ]
    (row,) = await sql("SELECT aggregate_id::text, payload FROM wallet.outbox WHERE event_type = 'SPLIT_DONE'")
    event = json.loads(row["payload"])
    assert (row["aggregate_id"], event["amount"]) == (ada["id"], "30.00")
    assert [
        (change["wallet_id"], change["direction"], change["balance_after"], change.get("amount"))
        for change in event["wallets"]
    ] == [(ada["id"], "out", "20.00", None), (cy["id"], "in", "29.99", "29.99"), (bob["id"], "in", "0.01", "0.01")]
    await assert_promises_kept()


async def test_a_split_to_one_receiver_names_it_as_the_counterparty(client: AsyncClient, wallets: Wallets) -> None:
    body = {"legs": [leg(wallets["bob"], REST)], "amount": "50.00"}
    paid = (await client.post(f"/wallets/{wallets['ada']['id']}/split", json=body)).json()
    assert (paid["counterparty_wallet_id"], paid["balance"]) == (wallets["bob"]["id"], "0.00")


async def test_splits_that_cross_each_other_at_once_are_all_done(
    client: AsyncClient, new_wallet: NewWallet, assert_promises_kept: Callable[[], Awaitable[None]]
) -> None:
    wallets = [await new_wallet(f"user-{number}", balance="10") for number in range(4)]
    replies = await asyncio.gather(
        *(
            client.post(
                f"/wallets/{payer['id']}/split",
                json={"legs": [leg(other, "0.10") for other in wallets[::order] if other is not payer]},
            )
            for payer in wallets
            for order in (1, -1) * 3
        )
    )
    assert {reply.status_code for reply in replies} == {200}
    for wallet in wallets:
        assert (await client.get(f"/wallets/{wallet['id']}")).json()["balance"] == "10.00"
    await assert_promises_kept()


async def test_a_payer_never_pays_more_than_it_has_in_splits_at_once(
    client: AsyncClient, wallets: Wallets, assert_promises_kept: Callable[[], Awaitable[None]]
) -> None:
    body = {"legs": [leg(wallets["bob"], "10"), leg(wallets["cy"], "5")]}
    path = f"/wallets/{wallets['ada']['id']}"
    replies = await asyncio.gather(*(client.post(f"{path}/split", json=body) for _ in range(8)))
    assert sorted(reply.status_code for reply in replies) == [200] * 3 + [422] * 5
    assert (await client.get(path)).json()["balance"] == "5.00"
    await assert_promises_kept()


REFUSED: dict[str, tuple[Callable[[Wallets], Json], str, str]] = {
    "no legs": (lambda _: {"legs": []}, "validation-error", "legs: "),
    "legs left out": (lambda _: {"amount": "1"}, "validation-error", "legs: "),
    "too many legs": (lambda w: {"legs": [leg(w["bob"])] * (RECEIVERS_MAX + 1)}, "validation-error", "legs: "),
    "a receiver named twice": (
        lambda w: {"legs": [leg(w["bob"]), leg(w["cy"]), {**leg(w["bob"]), "to_wallet_id": w["bob"]["id"].upper()}]},
        "validation-error",
        "legs.2.to_wallet_id: is the receiver of legs.0 too",
    ),
    "the payer as receiver": (
        lambda w: {"legs": [leg(w["bob"]), leg(w["ada"])]},
        "same-wallet",
        "legs.1.to_wallet_id: ",
    ),
    "no wallet's id": (
        lambda w: {"legs": [leg(w["bob"]), {"to_wallet_id": "x", "amount": "1"}]},
        "validation-error",
        "legs.1.to_wallet_id: must be a UUID",
    ),
    "a leg of zero": (
        lambda w: {"legs": [leg(w["bob"]), leg(w["cy"], "0.00")]},
        "validation-error",
        "legs.1.amount: must be more than zero",
    ),
    "a leg below zero": (lambda w: {"legs": [leg(w["bob"], -1)]}, "validation-error", "legs.0.amount: "),
    "a share": (lambda w: {"legs": [leg(w["bob"], "50%")]}, "validation-error", "legs.0.amount: "),
    "too many decimals": (lambda w: {"legs": [leg(w["bob"], "0.001")]}, "validation-error", "legs.0.amount: "),
    "an unknown field": (
        lambda w: {"legs": [{**leg(w["bob"]), "share": 1}]},
        "validation-error",
        "legs.0.share: ",
    ),
    "two rests": (
        lambda w: {"legs": [leg(w["bob"], REST), leg(w["cy"], REST)], "amount": "5"},
        "validation-error",
        "legs.1.amount: must be an amount: legs.0 has the rest",
    ),
    "a rest of nothing told": (
        lambda w: {"legs": [leg(w["bob"]), leg(w["cy"], REST)]},
        "validation-error",
        "amount: is needed, because legs.1 has the rest",
    ),
    "a rest of zero": (
        lambda w: {"legs": [leg(w["bob"], REST), leg(w["cy"], "5")], "amount": "5.00"},
        "validation-error",
        "legs.0.amount: must be more than zero: the other legs leave 0.00",
    ),
    "a rest below zero": (
        lambda w: {"legs": [leg(w["bob"], "5"), leg(w["cy"], REST)], "amount": "4.99"},
        "validation-error",
        "legs.1.amount: must be more than zero: the other legs leave -0.01",
    ),
    "an amount that is not the sum": (
        lambda w: {"legs": [leg(w["bob"], "5"), leg(w["cy"], "3")], "amount": "8.01"},
        "validation-error",
        "amount: must be the sum of the legs, 8.00",
    ),
    "more than the payer has": (
        lambda w: {"legs": [leg(w["bob"], "49.99"), leg(w["cy"], "0.02")]},
        "insufficient-funds",
        "amount: ",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_split_that_is_wrong_is_refused_with_the_leg_that_is_wrong_and_changes_nothing(
    client: AsyncClient, wallets: Wallets, sql: Sql, assert_problem: AssertProblem, case: str
) -> None:
    body, code, detail = REFUSED[case]
    state = "SELECT id, balance_minor, version FROM wallet.wallets ORDER BY id"
    before = await sql(state)
    reply = await client.post(f"/wallets/{wallets['ada']['id']}/split", json=body(wallets))
    problem = assert_problem(reply, 422, code)
    assert problem["detail"].startswith(detail)
    if code == "validation-error":
        assert problem["errors"][0]["field"] == detail.partition(":")[0]
    assert await sql(state) == before


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ("status = 'frozen'", 409, "wallet-frozen"),
        ("status = 'closed'", 409, "wallet-closed"),
        ("currency = 'USD'", 422, "currency-mismatch"),
        (f"balance_minor = {MINOR_MAX}", 422, "balance-limit-exceeded"),
    ],
)
async def test_one_receiver_that_cannot_receive_refuses_the_whole_split_and_is_named(
    client: AsyncClient,
    wallets: Wallets,
    sql: Sql,
    assert_problem: AssertProblem,
    change: str,
    status: int,
    code: str,
) -> None:
    await sql(f"UPDATE wallet.wallets SET {change} WHERE id = $1", UUID(wallets["cy"]["id"]))
    body = {"legs": [leg(wallets["bob"]), leg(wallets["cy"])]}
    problem = assert_problem(await client.post(f"/wallets/{wallets['ada']['id']}/split", json=body), status, code)
    assert problem["detail"].startswith("legs.1.")
    assert wallets["cy"]["id"] in problem["detail"]
    assert (await client.get(f"/wallets/{wallets['bob']['id']}")).json()["version"] == 1


async def test_a_receiver_that_does_not_exist_refuses_the_whole_split(
    client: AsyncClient, wallets: Wallets, assert_problem: AssertProblem
) -> None:
    unknown = {"id": "0198c2a5-0000-7000-8000-000000000001"}
    body = {"legs": [leg(wallets["bob"]), leg(unknown)]}
    reply = await client.post(f"/wallets/{wallets['ada']['id']}/split", json=body)
    assert assert_problem(reply, 404, "wallet-not-found")["detail"].startswith("legs.1.to_wallet_id: ")


async def test_twenty_receivers_are_paid_at_once(client: AsyncClient, new_wallet: NewWallet) -> None:
    payer = await new_wallet(balance="20")
    receivers = [await new_wallet("bob") for _ in range(RECEIVERS_MAX)]
    body = {"legs": [*(leg(receiver, "0.33") for receiver in receivers[1:]), leg(receivers[0], REST)], "amount": "20"}
    assert (await client.post(f"/wallets/{payer['id']}/split", json=body)).json()["balance"] == "0.00"
    balances = [(await client.get(f"/wallets/{receiver['id']}")).json()["balance"] for receiver in receivers]
    assert balances == ["13.73", *["0.33"] * (RECEIVERS_MAX - 1)]


def wallet(wallet_id: UUID, balance_minor: int = 0, **fields: Any) -> Wallet:
    return replace(Wallet(wallet_id, "ada", "EUR", balance_minor, 1, "active"), **fields)


def split(amounts: list[str], amount: str | None, caller: Caller = ANONYMOUS) -> Split:
    legs = [
        {"to_wallet_id": str(receiver), "amount": leg_amount}
        for receiver, leg_amount in zip(RECEIVERS, amounts, strict=False)
    ]
    body = SplitBody.model_validate({"legs": legs, "amount": amount})
    return Split(caller=caller, path="/", claim=None, traceparent=None, wallet_id=PAYER, if_match=None, **dict(body))


def decide(command: Split, payer: Wallet, *receivers: Wallet) -> LedgerTransaction | Problem:
    try:
        (transaction,) = command.decide(
            State.at(datetime.min.replace(tzinfo=UTC), {item.id: item for item in (payer, *receivers)})
        )
    except Problem as refusal:
        return refusal
    return transaction


PARTS = st.lists(st.integers(1, 10**12), min_size=1, max_size=RECEIVERS_MAX)


@given(PARTS, st.data())
def test_the_parts_of_a_split_are_exact_and_sum_to_its_amount_with_a_rest_or_without(
    parts: list[int], data: st.DataObject
) -> None:
    rest = data.draw(st.none() | st.integers(0, len(parts) - 1))
    told = [REST if number == rest else to_major(part, "EUR") for number, part in enumerate(parts)]
    amount = to_major(sum(parts), "EUR")
    is_told = rest is not None or data.draw(st.booleans())
    payer = wallet(PAYER, sum(parts) + data.draw(st.integers(0, 10)))
    done = decide(split(told, amount if is_told else None), payer, *map(wallet, RECEIVERS))
    assert isinstance(done, LedgerTransaction)
    assert [entry.amount_minor for entry in done.entries] == [-sum(parts), *parts]
    assert done.amount_minor == sum(parts)
    assert [item.id for item in done.wallets] == [PAYER, *RECEIVERS[: len(parts)]]
    assert done.wallet.balance_minor == payer.balance_minor - sum(parts)
    assert [item.balance_minor for item in done.wallets[1:]] == parts


@given(PARTS)
def test_a_payer_that_lacks_a_cent_pays_nothing(parts: list[int]) -> None:
    command = split([to_major(part, "EUR") for part in parts], None)
    assert isinstance(decide(command, wallet(PAYER, sum(parts) - 1), *map(wallet, RECEIVERS)), InsufficientFunds)


OF_ADA = Caller("key", "ada", frozenset(SCOPES))
STRANGERS = st.builds(
    wallet,
    st.just(RECEIVERS[1]),
    st.sampled_from([0, 100, MINOR_MAX]),
    user_id=st.just("bob"),
    status=st.sampled_from(["active", "frozen", "closed"]),
    currency=st.sampled_from(["EUR", "USD"]),
)


@given(STRANGERS, STRANGERS, st.integers(0, 20), st.sampled_from(["1.00", "0.07", "0", "x", "0.10"]))
def test_a_bound_caller_learns_of_a_receiver_only_whether_it_can_receive(
    one: Wallet, other: Wallet, balance_minor: int, amount: str
) -> None:
    command = split(["0.07", REST], amount, OF_ADA)
    payer, own = wallet(PAYER, balance_minor), wallet(RECEIVERS[0])
    outcomes = [decide(command, payer, own, stranger) for stranger in (one, other)]
    for outcome in outcomes:
        if isinstance(outcome, ReceiverUnavailable):
            assert outcome.detail.startswith("legs.1.to_wallet_id: ")
    told = {
        str(outcome) if isinstance(outcome, Problem) else "done"
        for outcome in outcomes
        if not isinstance(outcome, ReceiverUnavailable)
    }
    assert len(told) <= 1
    if len(told) == 1 and any(isinstance(outcome, ReceiverUnavailable) for outcome in outcomes):
        assert told == {"done"}, "the payer's own refusals come first"
