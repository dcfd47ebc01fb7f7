"""Runs the ORM app on its own tables."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateSchema

from benchmarks.lab import Lab, Service
from benchmarks.peers.orm_app import Base
from benchmarks.place import Place

_FILL = text("""
    INSERT INTO orm.wallets (id, user_id, currency, balance, version)
    SELECT id, user_id, currency, balance_minor / 100.0, 1 FROM wallet.wallets
""")


@contextmanager
def running(lab: Lab, place: Place) -> Iterator[Service]:
    """Run the app during the block, with the place's wallets and as many processes as our API."""
    asyncio.run(_make_tables(place))
    command = [
        *(sys.executable, "-m", "uvicorn", "benchmarks.peers.orm_app:app", "--port", "$PORT"),
        *("--workers", str(lab.api_processes), "--loop", "uvloop", "--http", "httptools"),
        *("--no-access-log", "--log-level", "warning"),
    ]
    with lab.process("orm", command, place.environment) as service:
        yield service


async def _make_tables(place: Place) -> None:
    engine = create_async_engine(make_url(place.url).set(drivername="postgresql+asyncpg"))
    async with engine.begin() as connection:
        await connection.execute(CreateSchema("orm"))
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(_FILL)
    await engine.dispose()
