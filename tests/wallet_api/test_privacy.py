"""What a reply to a caller of all users tells of the other wallet: its id, its currency, and whether it is open.

test_authorization.py has the callers that are bound to a user: they learn less.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
from httpx import AsyncClient, Response

from common.money import to_major

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
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
