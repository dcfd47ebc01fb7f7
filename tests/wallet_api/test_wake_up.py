"""What the relays hear of a commit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient

Json = dict[str, Any]


@pytest.fixture
async def hints(database_url: str) -> AsyncIterator[asyncio.Queue[str]]:
    """The channels on which something was said."""
    said: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(database_url)
    await connection.add_listener("outbox", lambda *event: said.put_nowait(event[2]))
    yield said
    await connection.close()


async def test_a_commit_is_told_to_the_relays(
    hints: asyncio.Queue[str], new_wallet: Callable[..., Awaitable[Json]]
) -> None:
    await new_wallet()
    assert await asyncio.wait_for(hints.get(), 20) == "outbox"


async def test_many_commits_in_a_moment_are_told_as_few(hints: asyncio.Queue[str], client: AsyncClient) -> None:
    bodies = [{"user_id": f"user-{number}", "currency": "EUR"} for number in range(40)]
    answers = await asyncio.gather(*(client.post("/wallets", json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {201}
    await asyncio.wait_for(hints.get(), 20)
    assert hints.qsize() < len(bodies)
