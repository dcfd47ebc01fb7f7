"""Engines: what their sessions are set to, and which connections are replaced."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import create_engine
from common.postgres.raw_sql import PING, raw_connection
from support.proxy import Proxy

Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Of one connection: who wants it gets the one that was used before, if it was kept."""
    engine = create_engine(database_url, "tests", pool_size=1, pool_timeout_seconds=2)
    yield engine
    await engine.dispose()


async def pid(engine: AsyncEngine) -> int:
    async with raw_connection(engine) as connection:
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SELECT count(*) FROM wallet.source_epochs WHERE epoch = 7") == 0
        found: int = connection.get_server_pid()
        return found


async def test_what_statements_rely_on_is_set_whatever_the_database_has_as_its_default(database_url: str) -> None:
    operator = await asyncpg.connect(database_url)
    settings = {"standard_conforming_strings": "off", "timezone": "Asia/Tokyo", "synchronous_commit": "off"}
    for name, value in settings.items():
        await operator.execute(f"ALTER DATABASE {make_url(database_url).database} SET {name} = '{value}'")
    await operator.close()
    engine = create_engine(database_url, "tests")
    async with raw_connection(engine) as connection:
        assert [await connection.fetchval(f"SHOW {name}") for name in settings] == ["on", "UTC", "on"]
    await engine.dispose()


async def test_sessions_that_were_all_ended_are_not_lent_again(database_url: str, eventually: Eventually) -> None:
    engine = create_engine(database_url, "all ended", pool_size=3, pool_timeout_seconds=2)
    async with raw_connection(engine) as one, raw_connection(engine) as two, raw_connection(engine) as three:
        connections = [one, two, three]
    operator = await asyncpg.connect(database_url)
    await operator.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'all ended'"
    )
    await operator.close()

    async def are_known_to_have_ended() -> bool:
        return all(connection.is_closed() for connection in connections)

    await eventually(are_known_to_have_ended)
    await pid(engine)
    async with engine.connect() as connection:
        await connection.execute(PING)
    await engine.dispose()


async def test_who_is_cancelled_while_an_ended_connection_is_replaced_leaves_its_place_in_the_pool(
    engine: AsyncEngine,
) -> None:
    # At each step of the way.
    for steps in range(12):
        async with raw_connection(engine) as connection:
            pass
        connection.terminate()
        taking = asyncio.create_task(pid(engine))
        for _ in range(steps):
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.wait({taking})
        await pid(engine)


async def test_a_transaction_ends_though_its_connection_was_forgotten_between_preparing_a_statement_and_running_it(
    database_url: str, linked_database_url: str, database_link: Proxy
) -> None:
    """Such a session isn't idle in its transaction, and would keep its locks for as long as TCP is alive."""
    engine = create_engine(
        linked_database_url, "tests", idle_in_transaction_timeout_seconds=1, transaction_timeout_seconds=2
    )
    is_prepared = False

    def is_behind_preparing(piece: bytes) -> bool:
        nonlocal is_prepared
        was_prepared, is_prepared = is_prepared, is_prepared or b"never run" in piece
        return was_prepared

    async def hold() -> None:
        async with raw_connection(engine) as connection:
            await connection.execute("BEGIN; SELECT FROM wallet.source_epochs FOR UPDATE")
            await connection.fetch("SELECT 'never run'")

    database_link.forget_at = is_behind_preparing
    holding = asyncio.create_task(hold())
    async with asyncio.timeout(20):
        while database_link.forget_at is not None:
            await asyncio.sleep(0.05)
    other = await asyncpg.connect(database_url)
    await other.execute("BEGIN; SET LOCAL lock_timeout = '15s'; SELECT FROM wallet.source_epochs FOR UPDATE; COMMIT")
    await other.close()
    holding.cancel()
    await asyncio.wait({holding})
    await engine.dispose()
