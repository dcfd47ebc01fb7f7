"""A connection pooler between a process and PostgreSQL is refused, whatever it is told to ignore."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.engine import make_url

from common.postgres.connections import UnsuitableDatabaseError
from common.postgres.database_health import health_checks
from common.postgres.engine import create_engine
from common.postgres.errors import is_refused_by_server, is_unreachable
from common.postgres.raw_sql import raw_connection
from support.command_lines import AsyncWalletCtl, run_walletctl, walletctl
from support.pooler import Pooler
from support.ports import free_port
from support.proxy import HOST
from walletctl.console import Exit

__all__ = ["run_walletctl", "walletctl"]

SETTINGS = {
    *("jit", "synchronous_commit", "statement_timeout", "lock_timeout", "transaction_timeout"),
    *("idle_in_transaction_session_timeout", "client_connection_check_interval", "tcp_user_timeout"),
    *("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count"),
}


@pytest.fixture(params=[set(), SETTINGS, {*SETTINGS, "wallet.session"}], ids=["strict", "lax", "ignores all"])
async def pooled_url(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[str]:
    url = make_url(database_url)
    async with Pooler(free_port(), url.port or 5432, ignored=request.param) as pooler:
        yield url.set(host=HOST, port=pooler.port).render_as_string(hide_password=False)


async def test_a_pooler_is_refused_with_the_way_out(pooled_url: str) -> None:
    engine = create_engine(pooled_url, "tests")
    with pytest.raises(UnsuitableDatabaseError, match=r"pooler.*name PostgreSQL itself in the URL") as refused:
        async with raw_connection(engine):
            pass
    assert is_refused_by_server(refused.value)
    assert is_unreachable(refused.value)
    async with health_checks(engine) as health:
        assert health.state().startswith("refuses: a connection pooler")
    await engine.dispose()


async def test_a_command_behind_a_pooler_ends_with_one_line(run_walletctl: AsyncWalletCtl, pooled_url: str) -> None:
    code, output = await run_walletctl("db", "status", DATABASE_URL=pooled_url)
    assert (code, output.count("\n"), "name PostgreSQL itself" in output) == (Exit.USAGE, 1, True), output


async def test_sessions_that_only_pass_a_proxy_are_not_taken_for_pooled_ones(linked_database_url: str) -> None:
    engine = create_engine(linked_database_url, "tests", pool_size=3)

    async def mark() -> str:
        async with raw_connection(engine) as connection:
            await connection.execute("SELECT pg_sleep(0.05)")
            return str(await connection.fetchval("SHOW wallet.session"))

    assert len(set(await asyncio.gather(mark(), mark(), mark()))) == 3
    await engine.dispose()
