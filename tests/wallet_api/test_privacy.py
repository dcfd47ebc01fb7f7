"""What a reply to a caller of all users tells of the other wallet: its id, its currency, and whether it is open.

Callers that are bound to a user learn less: test_authorization.py has what their requests are answered, and this module
what they read of transactions in which others took part.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from httpx import AsyncClient, Response

from common.events.models import TRANSACTION_EVENTS
from common.money import to_major
from support.callers import believe_callers, credentials

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]


def told(reply: Response) -> set[str]:
    """Return each word of a reply, its headers too."""
    return set(re.findall(r"[\w.@-]*[\w@-]", reply.text + " ".join(reply.headers.values())))


async def test_no_reply_holds_a_balance_a_user_or_a_name_of_another_wallet(
    client: AsyncClient, sql: Sql, new_wallet: NewWallet
) -> None:
    """No two wallets here ever have the same balance, so that a balance in a reply shows whose it is."""
    ada = await new_wallet("ada", balance="1000.37", external_id="ada-main", metadata={"of": "ada-metadata"})
    others = {
        "bob": await new_wallet("bob", balance="2000.38", external_id="bob-main", metadata={"of": "bob-metadata"}),
        "dollars": await new_wallet("carl", "USD", balance="3000.39", external_id="carl-main"),
        "frozen": await new_wallet("dora", balance="4000.41", external_id="dora-main"),
        "closed": await new_wallet("emil", balance="5000.42", external_id="emil-main"),
        "full": await new_wallet("fay", balance="92233720368547757.43", external_id="fay-main"),
    }
    for status in ("frozen", "closed"):
        await sql("UPDATE wallet.wallets SET status = $1 WHERE id = $2", status, UUID(others[status]["id"]))
    path, body = f"/wallets/{ada['id']}", {"reference": "rent"}
    asked: list[tuple[Json, Json, int]] = [
        (others["bob"], {"amount": "1.01"}, 200),
        (others["bob"], {"amount": "1000000"}, 422),
        (others["bob"], {"amount": "1", "currency": "USD"}, 422),
        (others["dollars"], {"amount": "1"}, 422),
        (others["frozen"], {"amount": "1"}, 409),
        (others["closed"], {"amount": "1"}, 409),
        (others["full"], {"amount": "500"}, 422),
        (ada, {"amount": "1"}, 422),
    ]
    replies = []
    for number, (receiver, fields, status_code) in enumerate(asked):
        for if_match in ({}, {}, {"If-Match": '"99"'}):
            to_receiver = {"to_wallet_id": receiver["id"]}
            split = {"legs": [{**to_receiver, "amount": "rest"}]}
            for name, receivers in (("transfer", to_receiver), ("split", split)):
                key = f"{name}-{number}{''.join(if_match.values())}".strip('"')
                headers = {"Idempotency-Key": key, **if_match}
                document = {**body, **fields, **receivers}
                replies.append(await client.post(f"{path}/{name}", json=document, headers=headers))
                assert replies[-1].status_code in {status_code, 412 if if_match else status_code}, replies[-1].text
    await client.post(f"/wallets/{others['bob']['id']}/transfer", json={"to_wallet_id": ada["id"], "amount": "3.07"})
    # The key of another user, for the same request with the own wallet.
    await client.post(
        f"/wallets/{others['bob']['id']}/fund", json={"amount": "1.02"}, headers={"Idempotency-Key": "bobs"}
    )
    replies.append(await client.post(f"{path}/fund", json={"amount": "1.02"}, headers={"Idempotency-Key": "bobs"}))
    assert replies[-1].status_code == 422
    taken = {"user_id": "ada", "currency": "EUR", "external_id": "ada-main"}
    replies.append(await client.post("/wallets", json=taken))
    replies += [await client.get(target) for target in (path, f"{path}/transactions", "/users/ada/wallets")]
    rows = await sql(
        "SELECT wallet_id, balance_after_minor FROM wallet.wallet_transactions WHERE wallet_id <> $1", UUID(ada["id"])
    )
    secrets = {to_major(row["balance_after_minor"], "EUR") for row in rows}
    secrets |= {name for other in others.values() for name in (other["user_id"], other["external_id"])}
    secrets |= {"bob-metadata"}
    assert len(secrets) >= 15
    for reply in replies:
        assert not told(reply) & secrets, reply.text


USERS = ("ada", "bob", "cleo")


@pytest.fixture
async def bound(open_client: OpenClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    """A client whose requests name their callers; without a name, a request is that of an unbound caller."""
    believe_callers(monkeypatch)
    async with open_client() as client:
        client.headers.update(credentials("admin"))
        yield client


async def act(client: AsyncClient, target: str, method: str = "POST", **body: Any) -> Json:
    reply = await client.request(method, target, json=body, headers={"If-Match": "*"})
    assert reply.is_success, reply.text
    done: Json = reply.json()
    return done


async def one_of_each_type(client: AsyncClient, ada: str, bob: str, cleo: str) -> None:
    """Make a transaction of each type but EXPIRE, which is as VOID. Ada pays; what is private has a text of its own."""
    path, to_bob = f"/wallets/{ada}", {"to_wallet_id": bob}
    for number, name in enumerate(("fund", "withdraw", "transfer", "split")):
        amount: Json = {"amount": "5.01"}
        legs: Json = {"legs": [{**to_bob, "amount": "1.23"}, {"to_wallet_id": cleo, "amount": "2.34"}]}
        body = legs if name == "split" else {**amount, **to_bob} if name == "transfer" else amount
        made = await act(client, f"{path}/{name}", external_id=f"private-id-{number}", reference="both", **body)
    back: Json = {"legs": [{**to_bob, "amount": "0.12"}, {"to_wallet_id": cleo, "amount": "0.13"}]}
    await act(client, f"/transactions/{made['transaction_id']}/reverse", reason="back-to-all", **back)
    held: Json = {"amount": "81.17", "capture_max": "93.19", "expires_in": 86_461, "external_id": "private-id-hold"}
    hold = (await act(client, f"{path}/holds", **held, **to_bob))["hold"]["id"]
    for part in ("11.03", "12.05"):
        captured = await act(client, f"/holds/{hold}/capture", amount=part, final=False, external_id=f"private-{part}")
    await act(client, f"/transactions/{captured['transaction_id']}/reverse", amount="1.07", reason="back-to-ada")
    await act(client, f"/holds/{hold}/void", reason="private-void")
    await act(client, f"{path}/limits", "PUT", overdraft_limit="77.31", balance_max="9100.37", velocity=[])
    await act(client, f"{path}/freeze", blocks="in", reason="private-freeze")
    await act(client, f"{path}/unfreeze", reason="private-unfreeze")
    await act(client, f"{path}/close", reason="private-close", sweep_to_wallet_id=bob)
    await act(client, f"{path}/reopen", reason="private-reopen")


async def test_no_reply_to_a_bound_caller_tells_what_is_private_to_another_user(bound: AsyncClient, sql: Sql) -> None:
    """Each type of transaction, each party, and each route that reads."""
    ids = {}
    for number, user_id in enumerate(USERS):
        wallet = await act(bound, "/wallets", user_id=user_id, currency="EUR", metadata={"of": f"private-to-{user_id}"})
        ids[user_id] = wallet["id"]
        await act(bound, f"/wallets/{wallet['id']}/fund", amount=f"{3 - number}000.37")
    await one_of_each_type(bound, *ids.values())
    rows = await sql("SELECT * FROM wallet.wallet_transactions")
    assert {row["type"] for row in rows} == TRANSACTION_EVENTS.keys() - {"EXPIRE"}
    money = {
        name: {
            to_major(minor, "EUR")
            for row in rows
            if row["wallet_id"] == UUID(id_)
            # A sweep moves all that its payer has: what a wallet received is no secret of the other.
            for minor in (row["balance_after_minor"], row["held_after_minor"], abs(row["amount_minor"]))
            if minor
        }
        for name, id_ in ids.items()
    }
    texts = set(re.findall(r"private-[\w.-]+", str([tuple(row) for row in rows])))
    # What the hold reserves at each of its steps, and how much may be captured of it.
    texts |= {"81.17", "93.19", "70.14", "58.09", "77.31", "9100.37"}
    moved = {str(row["transaction_id"]) for row in rows}
    for user_id, id_ in ids.items():
        path = f"/wallets/{id_}"
        paths = [path, *(f"{path}/{name}" for name in ("transactions", "holds", "balance?version=4", "limits"))]
        paths += [f"/users/{user_id}/wallets", f"/transactions?wallet_id={id_}", "/transactions?reference=both"]
        headers = credentials(f"key-of-{user_id}", user_id)
        replies = [
            await bound.get(target, headers=headers) for target in [*paths, *map("/transactions/{}".format, moved)]
        ]
        newest = max(row["created_at"] for row in rows).isoformat().replace("+00:00", "Z")
        period = f"{path}/statement?from=2026-01-01T00:00:00Z&to={newest}"
        accepted = ("application/json", "text/csv", "application/xml")
        replies += [await bound.get(period, headers={**headers, "Accept": media_type}) for media_type in accepted]
        assert {reply.status_code for reply in replies} <= {200, 404}
        assert {reply.status_code for reply in replies[-len(accepted) :]} == {200}
        read = "".join(reply.text for reply in replies)
        others = {other: f"private-to-{other}" for other in USERS if other != user_id}
        private = set[str]().union(others, others.values(), *(money[other] for other in others))
        private |= set() if user_id == "ada" else texts
        shown = {word for reply in replies for word in told(reply)}
        assert (private - money[user_id]) & shown == set()
        assert "back-to-all" in read
        assert ("back-to-ada" in read) == (user_id != "cleo")
        assert user_id != "ada" or texts <= shown
