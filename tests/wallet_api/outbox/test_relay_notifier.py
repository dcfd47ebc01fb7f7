"""The notification of relays after a commit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient

from common.postgres.engine import create_engine
from support.proxy import Proxy
from wallet_api.outbox import queries, relay_notifier
from wallet_api.outbox.relay_notifier import RelayNotifier

Json = dict[str, Any]


@pytest.fixture
async def notifications(database_url: str) -> AsyncIterator[asyncio.Queue[str]]:
    """The channels of the notifications so far."""
    said: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(database_url)
    await connection.add_listener("outbox", lambda *event: said.put_nowait(event[2]))
    yield said
    await connection.close()


async def test_a_commit_is_told_to_the_relays(
    notifications: asyncio.Queue[str], new_wallet: Callable[..., Awaitable[Json]]
) -> None:
    await new_wallet()
    assert await asyncio.wait_for(notifications.get(), 20) == "outbox"


async def test_many_commits_in_a_moment_are_told_as_few(notifications: asyncio.Queue[str], client: AsyncClient) -> None:
    bodies = [{"user_id": f"user-{number}", "currency": "EUR"} for number in range(40)]
    answers = await asyncio.gather(*(client.post("/wallets", json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {201}
    await asyncio.wait_for(notifications.get(), 20)
    assert notifications.qsize() < len(bodies)


async def test_a_notification_on_a_connection_that_was_forgotten_is_abandoned_and_the_next_is_heard(
    notifications: asyncio.Queue[str],
    linked_database_url: str,
    database_link: Proxy,
    eventually: Callable[..., Awaitable[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def is_forgotten() -> bool:
        return database_link.forget_at is None

    monkeypatch.setattr(queries, "_NOTIFY_SECONDS_MAX", 0.2)
    monkeypatch.setattr(relay_notifier, "_PAUSE_SECONDS", 0.01)
    engine = create_engine(linked_database_url, "tests", pool_size=1)
    notifier = RelayNotifier(engine)
    running = asyncio.create_task(notifier.run())
    notifier.note_commit(1)
    await asyncio.wait_for(notifications.get(), 20)
    database_link.forget_at = lambda piece: b"NOTIFY" in piece
    notifier.note_commit(1)
    await eventually(is_forgotten)
    notifier.note_commit(1)
    await asyncio.wait_for(notifications.get(), 20)
    running.cancel()
    await asyncio.wait({running})
    await engine.dispose()


async def test_a_hint_that_an_operator_cancels_is_lost_alone_and_the_shutdown_leaves_no_session(
    notifications: asyncio.Queue[str],
    open_client: Callable[..., AbstractAsyncContextManager[AsyncClient]],
    eventually: Callable[..., Awaitable[Any]],
    sql: Callable[..., Awaitable[list[asyncpg.Record]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notify, times = queries.notify_relays, 0

    async def notify_slowly_once(connection: asyncpg.Connection) -> None:
        nonlocal times
        times += 1
        if times == 1:
            await connection.execute("SELECT pg_sleep(600)")
        await notify(connection)

    async def is_cancelled() -> bool:
        found = await sql(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'wallet-api-notifier'"
            " AND datname = current_database() AND query = 'SELECT pg_sleep(600)' AND state = 'active'"
        )
        return bool(found)

    async def is_told() -> bool:
        await client.post("/wallets", json={"user_id": "ada", "currency": "EUR"})
        return not notifications.empty()

    async def are_gone() -> bool:
        return not await sql(
            "SELECT FROM pg_stat_activity WHERE application_name LIKE 'wallet-api%' AND datname = current_database()"
        )

    monkeypatch.setattr(queries, "notify_relays", notify_slowly_once)
    async with open_client() as client:
        await client.post("/wallets", json={"user_id": "ada", "currency": "EUR"})
        await eventually(is_cancelled)
        await eventually(is_told)
    await eventually(are_gone)
