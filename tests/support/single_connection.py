"""An engine of one connection, for tests of what becomes of a pool's connection."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import create_engine
from common.postgres.raw_sql import raw_connection


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine of one connection: each test step gets the same one, unless it was replaced."""
    engine = create_engine(database_url, "tests", pool_size=1, pool_timeout_seconds=2)
    yield engine
    await engine.dispose()


async def pid(engine: AsyncEngine) -> int:
    """Return the process of the connection's session, in which no transaction is open and nothing was written."""
    async with raw_connection(engine) as connection:
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SELECT count(*) FROM wallet.source_epochs WHERE epoch = 7") == 0
        found: int = connection.get_server_pid()
        return found
