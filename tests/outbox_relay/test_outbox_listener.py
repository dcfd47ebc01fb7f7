"""Notifications from PostgreSQL wake idle tasks of the relay."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay import outbox_listener
from outbox_relay.outbox_listener import OutboxListener

Eventually = Callable[..., Awaitable[Any]]

LONG_SECONDS = 60.0


@pytest.fixture
async def notifier(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of another client, which notifies."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def listener(relay_engine: AsyncEngine) -> AsyncIterator[OutboxListener]:
    """A listener that runs during the test."""
    stop = asyncio.Event()
    made = OutboxListener(relay_engine)
    running = asyncio.create_task(made.run(stop))
    yield made
    stop.set()
    await asyncio.wait_for(running, 20)


def heard(notifier: asyncpg.Connection, listener: OutboxListener) -> Callable[[], Awaitable[bool]]:
    """Return a check: does the listener hear a NOTIFY that is sent now?"""

    async def check() -> bool:
        await notifier.execute("NOTIFY outbox")
        return await listener.pause(asyncio.Event(), 0.5)

    return check


async def test_a_notify_wakes_one_idle_task(
    listener: OutboxListener, notifier: asyncpg.Connection, eventually: Eventually
) -> None:
    await eventually(heard(notifier, listener))
    stop = asyncio.Event()
    idle = [asyncio.create_task(listener.pause(stop, LONG_SECONDS)) for _ in range(2)]
    await asyncio.sleep(0)
    await notifier.execute("NOTIFY outbox")
    done, asleep = await asyncio.wait(idle, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [True]
    assert len(asleep) == 1
    stop.set()
    assert [await task for task in asleep] == [False]


async def test_while_all_tasks_are_busy_one_hint_is_kept_for_the_next_pause(
    listener: OutboxListener, notifier: asyncpg.Connection, eventually: Eventually
) -> None:
    await eventually(heard(notifier, listener))
    for _ in range(3):
        await notifier.execute("NOTIFY outbox")
    assert await listener.pause(asyncio.Event(), LONG_SECONDS)
    # When this answer is there, PostgreSQL has sent all three notifications.
    await notifier.execute("SELECT 1")
    await listener.pause(asyncio.Event(), 0.2)
    assert not await listener.pause(asyncio.Event(), 0.01)


@pytest.fixture
def soon_suspicious(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_listener, "_PING_SECONDS", 0.5)


@pytest.mark.usefixtures("soon_suspicious")
async def test_a_listener_that_lost_its_connection_listens_again(
    listener: OutboxListener, notifier: asyncpg.Connection, eventually: Eventually
) -> None:
    await eventually(heard(notifier, listener))
    ended = await notifier.fetchval(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'tests'"
    )
    assert ended
    await eventually(heard(notifier, listener))
