"""A whole relay: its tasks outlive cancelled and ended sessions, and no session stays open at its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.worker import Health
from outbox_relay import outbox_listener, run
from outbox_relay.publisher import Publisher
from outbox_relay.retention import OutboxRetention
from outbox_relay.run import relay_until
from outbox_relay.settings import RelaySettings
from support.outboxes import Outbox

Eventually = Callable[..., Awaitable[Any]]

SESSIONS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'outbox-relay'"


@asynccontextmanager
async def relaying(settings: RelaySettings) -> AsyncIterator["asyncio.Task[None]"]:
    stop = asyncio.Event()
    task = asyncio.create_task(relay_until(stop, settings, Health()))
    try:
        yield task
    finally:
        stop.set()
        await task


async def count(engine: AsyncEngine, query: str) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text(query)) or 0)


async def test_cancelled_statements_and_ended_sessions_end_no_task(
    relay_settings: RelaySettings,
    engine: AsyncEngine,
    outbox: Outbox,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_listener, "_PING_SECONDS", 1.0)
    async with relaying(relay_settings) as task:
        for how in ("pg_cancel_backend", "pg_terminate_backend", "pg_cancel_backend"):
            async with engine.begin() as holder:
                # Every task of the relay waits for this lock. A second table could end in a deadlock with a claim.
                await holder.execute(text("LOCK TABLE wallet.outbox IN ACCESS EXCLUSIVE MODE"))

                async def some_wait() -> bool:
                    return await count(engine, f"SELECT count(*) {SESSIONS} AND wait_event_type = 'Lock'") >= 3

                await eventually(some_wait)
                await count(engine, f"SELECT count({how}(pid)) {SESSIONS}")
            await outbox.write(uuid4(), 2)

            async def published() -> bool:
                return all(row["published_at"] for row in await outbox.rows())

            await eventually(published)
            assert not task.done()

        async def listening() -> bool:
            return await count(engine, f"SELECT count(*) {SESSIONS} AND query IN ('SELECT 1', 'LISTEN \"outbox\"')") > 0

        await eventually(listening)


async def test_a_task_that_fails_for_good_ends_the_relay_and_nothing_stays_open(
    relay_settings: RelaySettings, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    closed = []

    class CountingPublisher(Publisher):
        def close(self) -> None:
            closed.append(self)
            super().close()

    async def broken(self: OutboxRetention) -> int:
        del self
        raise ZeroDivisionError

    monkeypatch.setattr(OutboxRetention, "run_once", broken)
    monkeypatch.setattr(run, "Publisher", CountingPublisher)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(relay_until(asyncio.Event(), relay_settings, Health()), 30)
    assert len(closed) == relay_settings.relay_tasks

    async def nothing_is_open() -> bool:
        return await count(engine, f"SELECT count(*) {SESSIONS}") == 0

    await eventually(nothing_is_open)
