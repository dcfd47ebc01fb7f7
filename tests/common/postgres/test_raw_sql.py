"""Raw statements, and raw connections that go back to the pool."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import create_engine
from common.postgres.errors import is_unreachable
from common.postgres.raw_sql import RawStatement, raw_connection
from support.proxy import Proxy
from support.single_connection import engine, pid

__all__ = ["engine"]

Eventually = Callable[..., Awaitable[Any]]


async def use(engine: AsyncEngine, *statements: str, cut_after_seconds: float | None = None) -> None:
    """Begin a transaction, write, run the statements, and leave the transaction open."""
    async with raw_connection(engine) as connection:
        if cut_after_seconds is not None:
            asyncio.get_running_loop().call_later(cut_after_seconds, connection.terminate)
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO wallet.source_epochs (epoch, actor) VALUES (7, 'test')")
        for statement in statements:
            await connection.execute(statement)


async def test_an_open_transaction_is_rolled_back_and_the_connection_is_kept(engine: AsyncEngine) -> None:
    before = await pid(engine)
    await use(engine)
    assert await pid(engine) == before


@pytest.mark.parametrize("failing", ["SELECT 1 / 0", "nonsense"])
async def test_a_transaction_that_fails_is_rolled_back_and_the_connection_is_kept(
    engine: AsyncEngine, failing: str
) -> None:
    before = await pid(engine)
    with pytest.raises(asyncpg.PostgresError):
        await use(engine, failing)
    assert await pid(engine) == before


async def test_a_connection_whose_statement_was_cancelled_is_replaced(engine: AsyncEngine) -> None:
    before = await pid(engine)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(use(engine, "SELECT pg_sleep(60)"), 0.5)
    assert await pid(engine) != before


async def test_a_connection_that_broke_is_replaced_and_the_error_says_so(engine: AsyncEngine) -> None:
    before = await pid(engine)
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await use(engine, "SELECT pg_sleep(60)", cut_after_seconds=0.5)
    assert await pid(engine) != before


@pytest.mark.parametrize(
    "error", [asyncpg.AdminShutdownError(), asyncpg.InternalClientError(), asyncpg.InterfaceError(""), OSError()]
)
async def test_after_an_error_of_a_server_that_is_away_the_connection_is_replaced(
    engine: AsyncEngine, error: Exception
) -> None:

    async def fail() -> None:
        async with raw_connection(engine):
            raise error

    before = await pid(engine)
    with pytest.raises(type(error)):
        await fail()
    assert is_unreachable(error)
    assert await pid(engine) != before


async def test_after_a_write_finds_a_read_only_server_the_readers_of_the_database_are_replaced_too(
    engine: AsyncEngine, database_url: str
) -> None:
    """After a switch to another server, connections to the old one would still read, and what they read is old."""

    async def fail() -> None:
        async with raw_connection(engine):
            raise asyncpg.ReadOnlySQLTransactionError

    reader = create_engine(database_url, "tests", pool_size=1, writes=False)
    before = await pid(reader)
    assert await pid(reader) == before
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await fail()
    assert await pid(reader) != before
    await reader.dispose()


async def test_a_connection_whose_rollback_was_cancelled_is_replaced(
    linked_database_url: str, database_link: Proxy, eventually: Eventually
) -> None:
    engine = create_engine(linked_database_url, "tests", pool_size=1, pool_timeout_seconds=2)
    before = await pid(engine)
    database_link.forget_at = lambda piece: b"ROLLBACK" in piece
    using = asyncio.create_task(use(engine))

    async def is_rolling_back() -> bool:
        return database_link.forget_at is None

    await eventually(is_rolling_back)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert await pid(engine) != before
    await engine.dispose()


async def test_a_statement_sends_each_named_parameter_once(engine: AsyncEngine) -> None:
    statement = RawStatement("SELECT cast(:b AS int) - cast(:a AS int) AS difference, cast(:b AS int) AS b")
    assert statement.sql.count("$1") == 2
    async with raw_connection(engine) as connection:
        (row,) = await statement.fetch(connection, a=1, b=3)
    assert dict(row) == {"difference": 2, "b": 3}
    with pytest.raises(KeyError, match="a"):
        await statement.fetch(connection, b=3)
