"""What the relay hears from PostgreSQL while it has nothing to do."""

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
async def stranger(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session that is nobody's here."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def listener(engine: AsyncEngine) -> AsyncIterator[OutboxListener]:
    """Listens, or tries to."""
    stop = asyncio.Event()
    made = OutboxListener(engine)
    running = asyncio.create_task(made.run(stop))
    yield made
    stop.set()
    await asyncio.wait_for(running, 20)


def heard(stranger: asyncpg.Connection, listener: OutboxListener) -> Callable[[], Awaitable[bool]]:
    """Whether a NOTIFY that is sent now is heard."""

    async def check() -> bool:
        await stranger.execute("NOTIFY outbox")
        return await listener.pause(asyncio.Event(), 0.5)

    return check


async def test_a_notify_wakes_who_has_nothing_to_do_and_only_one_of_them(
    listener: OutboxListener, stranger: asyncpg.Connection, eventually: Eventually
) -> None:
    await eventually(heard(stranger, listener))
    stop = asyncio.Event()
    idle = [asyncio.create_task(listener.pause(stop, LONG_SECONDS)) for _ in range(2)]
    await asyncio.sleep(0)
    await stranger.execute("NOTIFY outbox")
    done, asleep = await asyncio.wait(idle, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [True]
    assert len(asleep) == 1
    stop.set()
    assert [await task for task in asleep] == [False]


async def test_a_hint_that_comes_while_all_are_busy_is_kept_for_the_next_and_many_count_as_one(
    listener: OutboxListener, stranger: asyncpg.Connection, eventually: Eventually
) -> None:
    await eventually(heard(stranger, listener))
    for _ in range(3):
        await stranger.execute("NOTIFY outbox")
    assert await listener.pause(asyncio.Event(), LONG_SECONDS)
    # All three are there by the time that the third one's own session has an answer to the next question.
    await stranger.execute("SELECT 1")
    await listener.pause(asyncio.Event(), 0.2)
    assert not await listener.pause(asyncio.Event(), 0.01)


@pytest.fixture
def soon_suspicious(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_listener, "_PING_SECONDS", 0.5)


@pytest.mark.usefixtures("soon_suspicious")
async def test_a_listener_that_lost_its_connection_listens_again(
    listener: OutboxListener, stranger: asyncpg.Connection, eventually: Eventually
) -> None:
    await eventually(heard(stranger, listener))
    ended = await stranger.fetchval(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'tests'"
    )
    assert ended
    await eventually(heard(stranger, listener))
