"""The transactions of a batch request, by its id."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from httpx import AsyncClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from support.lookups import ADA, ADMIN, BOB, EVE, NOTHING, Json, found, ids, move, pages_of
from support.plans import ledger_rows_read
from wallet_api.lookups import queries

OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]

KINDS = pytest.mark.parametrize("atomic", [False, True])
INSERT_BATCHES = """
    INSERT INTO wallet.wallet_transactions (transaction_id, entry, wallet_id, wallet_version, type, amount_minor,
        currency, balance_after_minor, batch_id)
    SELECT id, entry, $1, number * 2 + entry + 2, 'TRANSFER', CASE entry WHEN 1 THEN 1 ELSE -1 END, 'EUR', 1,
        CASE entry WHEN 1 THEN coalesce($2, id) END
    FROM (SELECT gen_random_uuid() AS id, number FROM generate_series(1, 2000) AS number) AS ids,
        generate_series(1, 2) AS entry
"""


def fund(wallet_id: str, amount: str = "1", **fields: Any) -> Json:
    return {"op": "fund", "wallet_id": wallet_id, "amount": amount, **fields}


def transfer(sender: str, receiver: str, amount: str = "1") -> Json:
    return {"op": "transfer", "wallet_id": sender, "to_wallet_id": receiver, "amount": amount}


async def send(client: AsyncClient, *operations: Json, atomic: bool = False) -> tuple[str, list[str]]:
    """Send a batch request; return its id and its transactions in the order of the operations."""
    reply = await client.post("/batches", json={"atomic": atomic, "operations": operations})
    assert reply.status_code == (200 if atomic else 207), reply.text
    sent = reply.json()
    return sent["batch_id"], [item["body"]["transaction_id"] for item in sent["items"] if "body" in item]


@KINDS
async def test_a_batch_id_finds_the_transactions_of_all_operations_and_each_of_them_names_it(
    client: AsyncClient, wallets: dict[str, str], atomic: bool
) -> None:
    """A close has two: that of its sweep is in no item of the reply."""
    ada, second, bob = wallets.values()
    close = {"op": "close", "wallet_id": second, "reason": "left", "sweep_to_wallet_id": ada}
    refused = [] if atomic else [transfer(ada, bob, "1000000"), fund(str(uuid4()))]
    operations = [fund(ada), transfer(ada, bob), *refused, transfer(bob, ada), close]
    batch_id, made = await send(client, *operations, atomic=atomic)
    _, others = await send(client, fund(ada), atomic=atomic)
    single = await move(client, ada)
    closed = (await client.get(f"/transactions/{made[-1]}")).json()
    made.insert(-1, closed["details"]["sweep"]["transaction_id"])
    assert ids(await found(client, batch_id=batch_id.upper(), order="asc")) == made
    pages = await pages_of(client, batch_id=batch_id, limit=2)
    assert [ids(page) for page in pages] == [made[:2:-1], made[2:0:-1], made[:1]]
    for item in pages[0]["items"] + pages[1]["items"] + pages[2]["items"]:
        assert item["batch_id"] == batch_id
        assert (await client.get(f"/transactions/{item['transaction_id']}")).json() == item
    for transaction_id, alone in [(others[0], False), (single["transaction_id"], True)]:
        read = (await client.get(f"/transactions/{transaction_id}")).json()
        assert (read["batch_id"] is None) == alone
        assert read["batch_id"] != batch_id


@KINDS
async def test_a_batch_id_belongs_to_the_wallets_that_acted_and_a_bound_caller_finds_its_own(
    client: AsyncClient, wallets: dict[str, str], sql: Sql, atomic: bool
) -> None:
    ada, second, bob = wallets.values()
    batch_id, made = await send(
        client, transfer(ada, bob), transfer(bob, ada), transfer(second, bob), fund(bob), atomic=atomic
    )
    of_ada, of_bob, of_second, fund_of_bob = made
    unknown = str(uuid4())
    for caller, seen in [
        (ADMIN, made),
        (ADA, [of_ada, of_second]),
        (BOB, [of_bob, fund_of_bob]),
        (EVE, []),
    ]:
        for order in ("asc", "desc"):
            page = await found(client, caller, batch_id=batch_id, order=order)
            assert ids(page) == (seen if order == "asc" else seen[::-1])
        assert await found(client, caller, batch_id=unknown) == NOTHING
    stranger, none = [
        await client.get("/transactions", params={"batch_id": each}, headers=EVE) for each in (batch_id, unknown)
    ]
    assert (stranger.content, stranger.headers.multi_items()) == (none.content, none.headers.multi_items())
    # A receiver reads the transaction, and not that it is one of a batch.
    for caller, told in [(ADMIN, batch_id), (ADA, batch_id), (BOB, None)]:
        read = (await client.get(f"/transactions/{of_ada}", headers=caller)).json()
        assert read["batch_id"] == told
    rows = await sql("SELECT transaction_id, entry FROM wallet.wallet_transactions WHERE batch_id = $1", UUID(batch_id))
    assert {(str(row["transaction_id"]), row["entry"]) for row in rows} == {(each, 1) for each in made}


@KINDS
async def test_a_preview_or_a_refused_batch_has_no_transactions_and_a_replayed_operation_is_of_the_batch_that_did_it(
    client: AsyncClient, wallets: dict[str, str], atomic: bool
) -> None:
    ada = wallets["ada"]
    body = {"atomic": atomic, "operations": [fund(ada)]}
    preview = (await client.post("/batches?preview=true", json=body)).json()
    assert await found(client, batch_id=preview["batch_id"]) == NOTHING
    headers, operation = ({"Idempotency-Key": "run"}, fund(ada)) if atomic else ({}, fund(ada, key="run"))
    body = {"atomic": atomic, "operations": [operation]}
    first, again = [(await client.post("/batches", json=body, headers=headers)).json() for _ in range(2)]
    assert ids(await found(client, batch_id=first["batch_id"])) == [first["items"][0]["body"]["transaction_id"]]
    if not atomic:
        assert again["items"][0]["body"] == first["items"][0]["body"]
        assert await found(client, batch_id=again["batch_id"]) == NOTHING
    else:
        assert again == first


async def test_the_release_of_an_overdue_hold_is_of_no_batch(
    client: AsyncClient, wallets: dict[str, str], sql: Sql
) -> None:
    ada = wallets["ada"]
    assert (await client.post(f"/wallets/{ada}/holds", json={"amount": "100"})).status_code == 201
    await sql("UPDATE wallet.holds SET expires_at = clock_timestamp()")
    batch_id, made = await send(client, transfer(ada, wallets["bob"]), atomic=True)
    assert ids(await found(client, batch_id=batch_id)) == made
    (newest, release) = (await found(client, wallet_id=ada, limit=2))["items"]
    assert [newest["transaction_id"], release["type"], release["batch_id"]] == [*made, "EXPIRE", None]


async def test_operations_that_had_to_wait_for_a_locked_wallet_are_found_with_the_others(
    open_client: OpenClient,
    client: AsyncClient,
    wallets: dict[str, str],
    database_url: str,
    retries: Callable[[str], float],
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    """They are written by a later database transaction."""
    ada, second, bob = wallets.values()
    holder = await asyncpg.connect(database_url)
    before = retries("wallet-busy")
    async with open_client(batch_lock_timeout_seconds=0.05, busy_retry_seconds=30) as other:
        other.headers.update(ADMIN)
        async with holder.transaction():
            await holder.execute("SELECT FROM wallet.wallets WHERE id = $1 FOR UPDATE", UUID(ada))
            sending = asyncio.create_task(send(other, transfer(ada, bob), fund(second)))

            async def one_is_done_and_one_waits() -> bool:
                read = await client.get(f"/wallets/{second}")
                return bool(read.json()["balance"] == "101.00") and retries("wallet-busy") > before

            await eventually(one_is_done_and_one_waits)
        batch_id, made = await sending
    await holder.close()
    assert len(made) == 2
    assert sorted(ids(await found(client, batch_id=batch_id))) == sorted(made)


async def test_a_search_reads_the_entries_of_its_batch_only_and_a_bound_caller_its_own_of_them(
    client: AsyncClient, wallets: dict[str, str], engine: AsyncEngine, sql: Sql
) -> None:
    """An index leads to them, also before PostgreSQL has statistics."""
    batch_id, made = await send(client, fund(wallets["ada"]), fund(wallets["second"]))
    await sql(INSERT_BATCHES, UUID(wallets["bob"]), None)

    async def rows_read(statement: Any, caller_user_id: str | None) -> float:
        highest = UUID(int=2**128 - 1)
        parameters = {"batch_id": batch_id, "caller_user_id": caller_user_id, "after": highest, "limit": 51}
        async with engine.connect() as connection:
            ((explained,),) = await connection.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"), parameters)
        return ledger_rows_read(explained[0]["Plan"])

    assert await rows_read(queries.BY_BATCH["desc"], None) < 10
    await sql("INSERT INTO wallet.wallets (id, user_id, currency) VALUES ($1, 'eve', 'EUR')", UUID(int=1))
    await sql(INSERT_BATCHES, UUID(int=1), UUID(batch_id))
    assert await rows_read(queries.BY_BATCH_OF_USER["desc"], "ada") < 10
    assert ids(await found(client, ADA, batch_id=batch_id)) == made[::-1]
