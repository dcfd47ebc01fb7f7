"""`final`: no transaction that might still write an earlier time is in flight."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from annotated_types import Le
from httpx import AsyncClient, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.raw_sql import BEGIN, raw_connection
from common.tables.roles import Role
from support.roles import Roles
from wallet_api import startup
from wallet_api.operations.catalogue import OPERATIONS
from wallet_api.operations.close import Close
from wallet_api.operations.freeze import Freeze
from wallet_api.operations.operation import Operation
from wallet_api.operations.reopen import Reopen
from wallet_api.operations.unfreeze import Unfreeze
from wallet_api.settings import WalletApiSettings
from wallet_api.statements.finality import READING_SECONDS_MAX, is_final

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]

# As a fund takes its time, and as a transfer does.
TAKE_TIME = {
    "unlocked": "SELECT clock_timestamp() FROM wallet.wallets WHERE id = $1",
    "locked": "SELECT clock_timestamp() FROM (SELECT FROM wallet.wallets WHERE id = $1 FOR UPDATE) AS locked",
}
WRITE = """
    WITH changed AS (
        UPDATE wallet.wallets
        SET balance_minor = balance_minor + 100, version = version + 1, updated_at = $2::timestamptz
        WHERE id = $1 RETURNING *
    )
    INSERT INTO wallet.wallet_transactions (transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id,
        type, amount_minor, currency, balance_after_minor, created_at)
    SELECT '0198c2a5-0000-7000-8000-000000000001'::uuid, 1, id, version, NULL::uuid, 'FUND', 100, currency,
        balance_minor, $2 FROM changed
    UNION ALL
    SELECT '0198c2a5-0000-7000-8000-000000000001'::uuid, 2, NULL, NULL, id, 'FUND', -100, currency, NULL, $2
    FROM changed
"""


async def balance_of(client: AsyncClient, wallet: Json, **query: Any) -> Json:
    reply = await client.get(f"/wallets/{wallet['id']}/balance", params=query)
    assert reply.status_code == 200, reply.text
    found: Json = reply.json()
    return found


async def statement_of(client: AsyncClient, wallet: Json, to: str) -> Json:
    query = {"from": wallet["created_at"], "to": to}
    reply = await client.get(f"/wallets/{wallet['id']}/statement", params=query)
    assert reply.status_code == 200, reply.text
    found: Json = reply.json()
    return found


@pytest.mark.parametrize("how", TAKE_TIME)
async def test_a_time_is_not_final_while_a_transaction_that_took_an_earlier_one_is_in_flight(
    client: AsyncClient, new_wallet: NewWallet, engine: AsyncEngine, how: str
) -> None:
    wallet, other = await new_wallet(balance="1"), await new_wallet(balance="1")
    async with raw_connection(engine) as transaction:
        await transaction.execute(BEGIN)
        created_at = await transaction.fetchval(TAKE_TIME[how], UUID(wallet["id"]))
        before = await balance_of(client, wallet)
        as_of = before["as_of"]
        assert (before["balance"], before["final"]) == ("1.00", False)
        assert datetime.fromisoformat(as_of) > created_at
        # It isn't known which wallets the transaction will change.
        assert not (await balance_of(client, other, at=as_of))["final"]
        assert not (await statement_of(client, wallet, as_of))["final"]
        # A time that a later version follows is final all the same, and so are versions.
        old = (datetime.fromisoformat(wallet["updated_at"]) - timedelta(microseconds=1)).isoformat()
        assert (await balance_of(client, wallet, at=old))["final"]
        assert (await statement_of(client, wallet, old))["final"]
        assert (await balance_of(client, wallet, version=2))["final"]
        await transaction.execute(WRITE, UUID(wallet["id"]), created_at)
        assert (await balance_of(client, wallet, at=as_of))["balance"] == "1.00"
        await transaction.execute("COMMIT")
    after = await balance_of(client, wallet, at=as_of)
    assert (after["balance"], after["version"], after["final"]) == ("2.00", 3, True)
    statement = await statement_of(client, wallet, as_of)
    assert (statement["closing"]["balance"], statement["final"]) == ("2.00", True)


async def test_the_answer_waits_for_transactions_that_are_about_to_end(
    client: AsyncClient, new_wallet: NewWallet, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet = await new_wallet(balance="1")
    async with raw_connection(engine) as transaction:
        await transaction.execute(BEGIN)
        await transaction.fetchval(TAKE_TIME["locked"], UUID(wallet["id"]))

        async def ended(_: float) -> None:
            await transaction.execute("COMMIT")

        monkeypatch.setattr("wallet_api.statements.finality.asyncio.sleep", ended)
        assert (await balance_of(client, wallet))["final"]


BEFORE: dict[type[Operation], type[Operation]] = {Unfreeze: Freeze, Reopen: Close}
"""What an operation needs to have happened."""


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_the_time_of_an_operation_that_is_not_committed_yet_is_not_final(
    open_client: OpenClient,
    client: AsyncClient,
    new_wallet: NewWallet,
    patient: dict[str, float],
    database_url: str,
    until_blocked: Callable[..., Awaitable[None]],
    operation: type[Operation],
) -> None:
    """The API's own transaction stands between its time and its commit: the outbox is locked."""
    wallet, other = await new_wallet(balance="5"), await new_wallet()
    receiver, why = {"to_wallet_id": other["id"]}, {"blocks": "all", "reason": "x", "sweep_to_wallet_id": other["id"]}
    fields = {"amount": "2", **receiver, "legs": [{**receiver, "amount": "rest"}], **why}

    def post(to: AsyncClient, made: type[Operation]) -> Awaitable[Response]:
        body = {name: value for name, value in fields.items() if name in made.body.model_fields}
        return to.post(f"/wallets/{wallet['id']}/{made.name}", json=body)

    if (earlier := BEFORE.get(operation)) is not None:
        assert (await post(client, earlier)).status_code == 200
    version = (await client.get(f"/wallets/{wallet['id']}")).json()["version"]
    holder = await asyncpg.connect(database_url)
    async with open_client(**patient) as slow:
        async with holder.transaction():
            await holder.execute("LOCK TABLE wallet.outbox IN EXCLUSIVE MODE")
            moving = asyncio.ensure_future(post(slow, operation))
            await until_blocked()
            before = await balance_of(client, wallet)
            assert (before["version"], before["final"]) == (version, False)
        moved = await moving
        assert moved.status_code == operation.status
    after = await balance_of(client, wallet, at=before["as_of"])
    assert (after["version"], after["final"]) == (moved.json()["version"], True)
    await holder.close()


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[None]:
    """Keep a transaction open that has read the wallets, as `pg_dump` does."""
    connection = await asyncpg.connect(url)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.fetch("SELECT FROM wallet.wallets")
        yield
    await connection.close()


async def test_one_that_only_reads_keeps_only_the_times_of_the_last_minutes_from_being_final(
    new_wallet: NewWallet, database_url: str, roles: Roles, engine: AsyncEngine, sql: Sql
) -> None:
    await new_wallet()
    ((now,),) = await sql("SELECT clock_timestamp()")
    old = now - timedelta(seconds=READING_SECONDS_MAX + 60)
    for url in (database_url, roles.url(database_url, Role.AUDITOR)):
        async with reading(url):
            assert (await is_final(engine, now), await is_final(engine, old)) == (False, True)
    # Not so one that has locked a wallet: its commit may wait for a standby for any time.
    async with raw_connection(engine) as transaction:
        await transaction.execute(BEGIN)
        await transaction.execute("SELECT FROM wallet.wallets FOR UPDATE")
        assert (await is_final(engine, now), await is_final(engine, old)) == (False, False)
    assert (await is_final(engine, now), await is_final(engine, old)) == (True, True)


async def test_transactions_of_other_databases_and_maintenance_do_not_count(
    new_wallet: NewWallet,
    engine: AsyncEngine,
    database_url: str,
    new_database: Callable[[str | None], str],
    template: str,
    sql: Sql,
) -> None:
    await new_wallet()
    ((now,),) = await sql("SELECT clock_timestamp()")
    maintenance = await asyncpg.connect(database_url)
    async with reading(new_database(template)), maintenance.transaction():
        # As VACUUM, ANALYZE and CREATE INDEX CONCURRENTLY do.
        await maintenance.execute("LOCK TABLE wallet.wallets IN SHARE UPDATE EXCLUSIVE MODE")
        assert await is_final(engine, now)
    await maintenance.close()


def test_no_setting_lets_a_transaction_of_the_api_read_for_longer() -> None:
    bounds = WalletApiSettings.model_fields["transaction_timeout_seconds"].metadata
    (longest,) = (bound.le for bound in bounds if isinstance(bound, Le))
    assert isinstance(longest, int)
    assert longest + startup._HUNG_TRANSACTION_SECONDS < READING_SECONDS_MAX
