"""Engines: the settings of their sessions, what a reader is refused, and which connections are replaced."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.connections import UnsuitableDatabaseError
from common.postgres.engine import create_engine
from common.postgres.errors import READ_ONLY, is_unreachable, sqlstate
from common.postgres.raw_sql import PING, raw_connection
from support.proxy import Proxy
from support.single_connection import engine, pid

__all__ = ["engine"]

Eventually = Callable[..., Awaitable[Any]]


async def test_each_session_sets_what_statements_rely_on_whatever_the_databases_defaults_are(database_url: str) -> None:
    operator = await asyncpg.connect(database_url)
    settings = {"standard_conforming_strings": "off", "timezone": "Asia/Tokyo", "synchronous_commit": "off"}
    for name, value in settings.items():
        await operator.execute(f"ALTER DATABASE {make_url(database_url).database} SET {name} = '{value}'")
    await operator.close()
    engine = create_engine(database_url, "tests")
    async with raw_connection(engine) as connection:
        assert [await connection.fetchval(f"SHOW {name}") for name in settings] == ["on", "UTC", "on"]
    await engine.dispose()


WRITE = text("INSERT INTO wallet.source_epochs (epoch, actor) VALUES (8, 'test')")


async def test_a_write_through_a_reader_is_refused_as_a_defect_and_the_connection_is_kept(
    database_url: str,
) -> None:
    reader = create_engine(database_url, "tests", pool_size=1, writes=False)
    before = await pid(reader)
    async with reader.connect() as connection:
        with pytest.raises(RuntimeError, match="an engine that only reads") as refused:
            await connection.execute(WRITE)
    assert refused.value.__cause__ is not None
    assert sqlstate(refused.value.__cause__) == READ_ONLY
    assert not is_unreachable(refused.value)
    assert await pid(reader) == before
    await reader.dispose()


async def test_a_database_that_is_read_only_is_unreachable_for_a_write_and_costs_the_connection(
    engine: AsyncEngine, database_url: str
) -> None:
    operator = await asyncpg.connect(database_url)
    database = make_url(database_url).database
    await operator.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as refused:
            await connection.execute(WRITE)
    assert is_unreachable(refused.value)
    await operator.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    await operator.close()
    async with engine.begin() as connection:
        await connection.execute(WRITE)


@pytest.mark.parametrize("where", ["in the URL", "by default"])
async def test_a_reader_takes_the_host_that_can_write(database_url: str, where: str) -> None:
    """The session itself is read-only, which must not make the host look so."""
    parsed = make_url(database_url)
    said = {"target_session_attrs": "read-write"} if where == "in the URL" else {}
    query = {"host": [f"{parsed.host}:{parsed.port}"] * 2, **said}
    url = parsed.set(host=None, port=None, query=query).render_as_string(hide_password=False)
    reader = create_engine(url, "tests", writes=False, on_standby=where == "in the URL")
    async with reader.connect() as connection:
        await connection.execute(PING)
    await reader.dispose()


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


async def test_a_task_that_is_cancelled_while_its_connection_is_replaced_returns_its_place_in_the_pool(
    engine: AsyncEngine,
) -> None:
    # At each step of taking the connection.
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


async def test_a_transaction_ends_though_its_connection_was_dropped_between_preparing_a_statement_and_running_it(
    database_url: str, linked_database_url: str, database_link: Proxy
) -> None:
    """Such a session doesn't count as idle in its transaction, so only `transaction_timeout` frees its locks."""
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


async def test_the_urls_options_are_set_except_where_a_promise_needs_another_value(database_url: str) -> None:
    options = "-c%20synchronous_commit=off%20-c%20timezone=Asia/Tokyo%20-c%20work_mem=9MB"
    engine = create_engine(f"{database_url}?options={options.replace('=', '%3D')}&application_name=eu", "tests")
    async with raw_connection(engine) as connection:
        names = ("synchronous_commit", "timezone", "work_mem", "application_name")
        shown = [await connection.fetchval(f"SHOW {name}") for name in names]
    assert shown == ["on", "UTC", "9MB", "eu tests"]
    await engine.dispose()


@pytest.mark.parametrize("options", ["-c nope=1", "-c work_mem=x", "-c fsync=off", "-x"])
async def test_wrong_options_are_refused_in_one_line_with_the_way_out(database_url: str, options: str) -> None:
    engine = create_engine(f"{database_url}?options={quote(options)}", "tests")
    with pytest.raises(UnsuitableDatabaseError, match=r"^a setting is refused: [^\n]+ \(correct options in the URL\)$"):
        await pid(engine)
    await engine.dispose()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("PGPORT", "x", "correct the URL, or the variable that begins with PG"),
        ("PGSSLMODE", "x", "correct the URL, or the variable that begins with PG"),
        ("PGUSER", "", "put a user into the URL"),
    ],
)
async def test_wrong_variables_of_libpq_are_refused(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", Mock(side_effect=KeyError("uid not found")))
    monkeypatch.setenv("PGUSER", "ada")
    monkeypatch.setenv(variable, value)
    engine = create_engine("postgresql://127.0.0.1/db", "tests")
    with pytest.raises(UnsuitableDatabaseError, match=told):
        await pid(engine)
    await engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://[::1%25nowhere]:1/db",
        "postgresql://name.invalid/db",
        f"postgresql:///db?host=/{'x' * 300}",
        "postgresql:///db?host=/nowhere&port=1",
        "postgresql://127.0.0.1:1/db?sslmode=verify-full",
    ],
)
async def test_a_url_that_can_be_read_and_leads_nowhere_is_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    engine = create_engine(url, "tests")
    with pytest.raises((OSError, DBAPIError)) as failed:
        await pid(engine)
    assert is_unreachable(failed.value)
    await engine.dispose()
