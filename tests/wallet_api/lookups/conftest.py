"""A client whose requests name their callers, and wallets of two users."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from httpx import AsyncClient

from support.callers import believe_callers
from support.lookups import ADMIN


@pytest.fixture
async def client(
    open_client: Callable[..., AbstractAsyncContextManager[AsyncClient]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncClient]:
    """A client whose requests name their callers; without a name, a request is that of an unbound caller."""
    believe_callers(monkeypatch)
    async with open_client() as client:
        client.headers.update(ADMIN)
        yield client


@pytest.fixture
async def wallets(new_wallet: Callable[..., Awaitable[dict[str, Any]]]) -> dict[str, str]:
    """The ids of a wallet of ada, of a second one, and of one of bob, each with 100.00."""
    users = {"ada": "ada", "second": "ada", "bob": "bob"}
    return {name: (await new_wallet(user_id, balance="100"))["id"] for name, user_id in users.items()}
