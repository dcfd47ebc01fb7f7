"""Health checks of a database behind a proxy that the test breaks and repairs."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import structlog
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import LogCapture

import common.postgres.database_health
from common.postgres.database_health import INTERVAL_SECONDS, PING, TIMEOUT_SECONDS, DatabaseHealth, health_checks
from common.postgres.engine import create_engine, url_of
from common.postgres.errors import is_unreachable
from support.proxy import Proxy

Eventually = Callable[..., Awaitable[Any]]
NOTICED_SECONDS_MAX = INTERVAL_SECONDS + TIMEOUT_SECONDS + 3
"""The promised time, and a margin for a busy machine."""


@pytest.fixture
async def engine(linked_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(linked_database_url, "tests", pool_size=5)
    yield engine
    await engine.dispose()


async def use_pool(engine: AsyncEngine) -> None:
    """Use every connection of the pool."""
    await asyncio.gather(*(sleep_in_database(engine, 0.1) for _ in range(5)))


async def sleep_in_database(engine: AsyncEngine, seconds: float) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


def says(health: DatabaseHealth, state: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return health.state() == state

    return look


async def test_statements_on_a_silent_network_fail_within_a_second_and_the_pool_works_afterwards(
    engine: AsyncEngine, database_link: Proxy, eventually: Eventually
) -> None:
    async with health_checks(engine) as health:
        await use_pool(engine)
        database_link.silence()
        silent_at = time.monotonic()
        # More statements than connections, so that some wait for a connection and some for the network.
        found = await asyncio.gather(*(sleep_in_database(engine, 0) for _ in range(8)), return_exceptions=True)
        assert all(isinstance(error, BaseException) and is_unreachable(error) for error in found), found
        assert time.monotonic() - silent_at < NOTICED_SECONDS_MAX
        assert health.state() == "away: no answer"
        with pytest.raises(ConnectionError):
            await sleep_in_database(engine, 0)
        database_link.heal()
        await eventually(says(health, "ok"))
        await use_pool(engine)


async def test_connections_that_a_firewall_dropped_are_replaced_before_they_are_lent(
    engine: AsyncEngine, database_link: Proxy, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = LogCapture()
    log = structlog.wrap_logger(None, processors=[seen], wrapper_class=structlog.make_filtering_bound_logger(0))
    monkeypatch.setattr(common.postgres.database_health, "log", log)

    async def gone_and_back() -> bool:
        return [entry["event"] for entry in seen.entries] == ["database_away", "database_back"]

    async with health_checks(engine):
        await use_pool(engine)
        database_link.silence()
        database_link.heal(forget=True)
        await eventually(gone_and_back)
        await use_pool(engine)


async def test_a_process_that_is_suspended_does_not_count_the_database_as_away(
    engine: AsyncEngine, database_link: Proxy, eventually: Eventually
) -> None:
    checks = 0

    def be_suspended(_: bytes) -> bool:
        nonlocal checks
        checks += 1
        time.sleep(TIMEOUT_SECONDS + 0.1)
        return False

    async def three_checks() -> bool:
        return checks >= 3

    async with health_checks(engine), engine.connect() as connection:
        await connection.execute(text("SELECT 2"))
        database_link.forget_at = be_suspended
        await eventually(three_checks)
        database_link.forget_at = None
        await connection.execute(text("SELECT 2"))


async def test_a_health_check_whose_session_was_ended_opens_a_new_one_and_the_pool_keeps_its_connections(
    engine: AsyncEngine, database_url: str, eventually: Eventually
) -> None:
    seen: set[int] = set()
    operator = await asyncpg.connect(database_url)

    async def three_sessions() -> bool:
        # Only sessions that have answered: if a new session is ended, the database counts as away.
        for row in await operator.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'health-check'"
            " AND state = 'idle' AND query = $1",
            PING,
        ):
            await operator.execute("SELECT pg_terminate_backend($1, 5000)", row["pid"])
            seen.add(row["pid"])
        return len(seen) >= 3

    async with health_checks(engine):
        waiting = asyncio.create_task(sleep_in_database(engine, 3))
        await eventually(three_sessions)
        await waiting
    await operator.close()


async def test_a_health_check_whose_session_asyncpg_has_lost_opens_a_new_one_and_the_pool_keeps_its_connections(
    engine: AsyncEngine, database_url: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncpg raises InternalClientError for a connection that is closing."""
    lost: list[int] = []
    fetchval = asyncpg.Connection.fetchval
    operator = await asyncpg.connect(database_url)

    async def lose_first(connection: asyncpg.Connection, query: str, *args: object, **options: Any) -> Any:
        if query == PING and not lost:
            lost.append(connection.get_server_pid())
            raise asyncpg.InternalClientError
        return await fetchval(connection, query, *args, **options)

    async def has_another() -> bool:
        found = await operator.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'health-check'"
        )
        return bool(lost) and bool({row["pid"] for row in found} - set(lost))

    async with health_checks(engine):
        waiting = asyncio.create_task(sleep_in_database(engine, 2))
        monkeypatch.setattr(asyncpg.Connection, "fetchval", lose_first)
        await eventually(has_another)
        await waiting
    await operator.close()


async def test_a_database_without_a_free_connection_for_the_health_check_is_not_away(
    engine: AsyncEngine, database_url: str
) -> None:
    operator = await asyncpg.connect(database_url)
    role = f"crowd_{uuid4().hex}"
    await operator.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'crowd' CONNECTION LIMIT 2")
    url = make_url(url_of(engine).read()).set(username=role, password="crowd")
    crowded = create_engine(url.render_as_string(hide_password=False), "tests")
    try:
        async with health_checks(crowded), crowded.connect() as connection:
            await connection.execute(text(PING))
            await operator.execute(f"ALTER ROLE {role} CONNECTION LIMIT 1")
            await operator.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE usename = $1 AND application_name = 'health-check'",
                role,
            )
            # Longer than several checks take.
            await connection.execute(text("SELECT pg_sleep(1)"))
    finally:
        await crowded.dispose()
        await operator.execute(f"DROP ROLE {role}")
        await operator.close()


async def test_a_database_that_refuses_is_logged_once_however_often_it_is_checked(
    engine: AsyncEngine, database_url: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = LogCapture()
    log = structlog.wrap_logger(None, processors=[seen], wrapper_class=structlog.make_filtering_bound_logger(0))
    monkeypatch.setattr(common.postgres.database_health, "log", log)
    monkeypatch.setattr(common.postgres.database_health, "_REFUSED_INTERVAL_SECONDS", 0.05)
    operator = await asyncpg.connect(database_url)
    role = f"shut_out_{uuid4().hex}"
    await operator.execute(f"CREATE ROLE {role} NOLOGIN PASSWORD '{role}'")
    url = make_url(url_of(engine).read()).set(username=role, password=role)
    refused = create_engine(url.render_as_string(hide_password=False), "tests")
    async with health_checks(refused) as health:
        for _ in range(5):
            await health.check()
            assert health.state().startswith("refuses: ")
        await operator.execute(f"ALTER ROLE {role} LOGIN")
        await eventually(says(health, "ok"))
    assert [entry["event"] for entry in seen.entries] == ["database_refuses", "database_back"]
    await refused.dispose()
    await operator.execute(f"DROP ROLE {role}")
    await operator.close()
