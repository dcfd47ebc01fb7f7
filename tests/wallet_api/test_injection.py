"""Hostile text in each input of each route stays text."""

import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from httpx import AsyncClient

from support.injections import PAYLOADS, attacks

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]

PARTS = 4
"""In so many tests, since there are 18,000 requests."""
REPLY_HEADERS = {"content-type", "content-length", "etag", "location", "link", "idempotent-replayed", "vary"}
TABLES = "SELECT count(*) AS count FROM pg_tables WHERE schemaname IN ('wallet', 'history')"


@pytest.mark.parametrize("first", range(PARTS))
async def test_hostile_text_in_any_input_is_stored_or_refused_and_changes_nothing_else(
    first: int,
    client: AsyncClient,
    new_wallet: NewWallet,
    sql: Sql,
    assert_promises_kept: Callable[[], Awaitable[None]],
) -> None:
    wallet, other = await new_wallet(balance="1000"), await new_wallet("bob")
    (entry,) = (await client.get(f"/wallets/{wallet['id']}/transactions")).json()["items"]
    hold = (await client.post(f"/wallets/{wallet['id']}/holds", json={"amount": "1"})).json()["hold"]
    tables = await sql(TABLES)
    valid = {
        "hold_id": hold["id"],
        "wallet_id": wallet["id"],
        "to_wallet_id": other["id"],
        "user_id": "ada",
        "currency": "EUR",
        "amount": "0.01",
        "legs": [{"to_wallet_id": other["id"], "amount": "0.01"}],
        "atomic": False,
        "operations": [{"op": "fund", "wallet_id": wallet["id"], "amount": "0.01"}],
        "blocks": "in",
        "overdraft_limit": "1",
        "balance_max": None,
        "velocity": [{"id": "a", "direction": "out", "window": "day", "amount": "1000"}],
        "reason": "a test",
        "transaction_id": entry["transaction_id"],
        "from": "2026-01-01T00:00:00Z",
        "to": "2026-02-01T00:00:00Z",
    }
    document = (await client.get("/openapi.json")).json()
    count = 0
    for attack in attacks(document, valid, PAYLOADS[first::PARTS]):
        reply = await attack.send(client)
        count += 1
        assert reply.status_code < 500, (attack, reply.text)
        assert set(reply.headers) <= REPLY_HEADERS, (attack, reply.headers)
        assert not any(character in value for value in reply.headers.values() for character in "\r\n\0"), attack
        if reply.status_code not in {204, 304}:
            json.loads(reply.content)
    assert count > 1000
    assert await sql(TABLES) == tables
    await assert_promises_kept()


async def test_hostile_text_that_is_stored_comes_back_as_it_went_and_finds_only_itself(
    client: AsyncClient, new_wallet: NewWallet
) -> None:
    await new_wallet("ada")
    stored = 0
    for payload in PAYLOADS:
        body = {"user_id": payload, "currency": "EUR", "external_id": payload, "metadata": {payload: payload}}
        created = await client.post("/wallets", json=body)
        listed = await client.get(f"/users/{quote(payload, safe='')}/wallets")
        if created.status_code == 201:
            stored += 1
            assert [created.json()[name] for name in body] == list(body.values())
            assert listed.json()["items"] == [created.json()]
        else:
            assert created.status_code == 422
            assert listed.status_code in {200, 404, 422}
            assert listed.json().get("items", []) == []
    assert stored >= 5


async def test_hostile_text_in_metadata_finds_only_itself(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet()
    found = 0
    for payload in PAYLOADS:
        for metadata in ({payload: "x"}, {"x": payload}):
            ((key, value),) = metadata.items()
            body = {"amount": "1", "metadata": metadata}
            funded = await client.post(f"/wallets/{wallet['id']}/fund", json=body)
            query = {"wallet_id": wallet["id"], f"metadata[{key}]": value}
            listed = await client.get("/transactions", params=query)
            if listed.status_code == 200:
                (item,) = listed.json()["items"]
                assert (item["transaction_id"], item["metadata"]) == (funded.json()["transaction_id"], metadata)
                found += 1
            else:
                assert listed.status_code == 422
    assert found >= 2 * (len(PAYLOADS) - 2)


async def test_a_log_line_stays_one_line_whatever_the_path_has(
    open_client: Callable[..., AbstractAsyncContextManager[AsyncClient]], capfd: pytest.CaptureFixture[str]
) -> None:
    async with open_client(database_url="postgresql://nobody@127.0.0.1:1/none") as lonely:
        for payload in PAYLOADS:
            await lonely.get(f"/users/{quote(payload, safe='')}/wallets")
            await lonely.get(f"/wallets/{quote(payload, safe='')}")
    lines = capfd.readouterr().err.splitlines()
    assert lines
    for line in lines:
        assert json.loads(line)["event"]
        assert "\x1b" not in line
