from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access.caller import SCOPES
from common.access.key_acts import create_key
from common.tables.roles import Role
from support.roles import Roles


@dataclass
class Clock:
    """A clock that the test sets."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def api(database_url: str, roles: Roles) -> AsyncIterator[AsyncEngine]:
    """An engine that logs in as the wallet API does."""
    async with roles.engine(database_url, Role.API) as engine:
        yield engine


@pytest.fixture
def sql(engine: AsyncEngine) -> Callable[..., Awaitable[Any]]:
    """Run a statement as the superuser, and return its only value, or None."""

    async def run(statement: str, **parameters: object) -> Any:
        async with engine.begin() as connection:
            result = await connection.execute(text(statement), parameters)
            return result.scalar_one_or_none() if result.returns_rows else None

    return run


@pytest.fixture
def new_key(operator: AsyncEngine) -> Callable[..., Awaitable[tuple[str, str]]]:
    """Create a key with all scopes; return its id and its text."""

    async def create(**options: Any) -> tuple[str, str]:
        key = await create_key(operator, "test", "a test", SCOPES, **options)
        return key.id, key.text

    return create
