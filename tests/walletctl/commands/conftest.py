"""Wallets, and an operator that acts on them."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from common.postgres.engine import create_engine
from common.tables.roles import Role
from support.pipelines import Wallets, move_money, new_wallets
from support.roles import Roles

Fetch = Callable[..., Awaitable[list[asyncpg.Record]]]


@pytest.fixture
def at(database_url: str, roles: Roles) -> dict[str, str]:
    """The environment of an operator."""
    return {"DATABASE_URL": roles.url(database_url, Role.OPERATOR), "OPERATOR": "on-call"}


@pytest.fixture
async def wallets(database_url: str) -> Wallets:
    engine = create_engine(database_url, "tests")
    made = await new_wallets(engine)
    await move_money(engine, made, rounds=1)
    await engine.dispose()
    return made


@pytest.fixture
def fetch(database_url: str) -> Fetch:
    async def run(query: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(database_url)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    return run
