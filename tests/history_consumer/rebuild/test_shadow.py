"""A reader of the history meets no deadlock and no incomplete history while a rebuild swaps the tables."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.postgres.engine import operator_engine
from common.postgres.errors import LOCK_NOT_AVAILABLE, sqlstate
from common.postgres.reading import fetch_value
from common.settings import PipelineSettings
from common.tables.roles import Role
from history_consumer.gap_queries import KEEP_TABLES, alarms
from history_consumer.operations.status import history_status
from history_consumer.operations.status_queries import oldest_gaps
from history_consumer.read_api.page_queries import Filters, WantedVersion, reached_versions, user_page, wallet_page
from history_consumer.rebuild import shadow
from support.roles import ROLES
from walletctl.verify.snapshots import take_snapshots

Taker = Callable[[AsyncConnection], Coroutine[Any, Any, object]]
Eventually = Callable[..., Awaitable[object]]

ALL = Filters(None, None, None)
TAKERS: dict[str, tuple[Role, Taker]] = {
    "wallet_page": (Role.READER, lambda connection: wallet_page(connection, uuid4(), None, "asc", 0, ALL, 10)),
    "user_page": (Role.READER, lambda connection: user_page(connection, "ada", "asc", (uuid4(), uuid4()), ALL, 10)),
    "reached_versions": (
        Role.READER,
        lambda connection: reached_versions(connection, {WantedVersion(uuid4(), None, 1)}),
    ),
    "oldest_gaps": (Role.OPERATOR, lambda connection: oldest_gaps(connection, 10)),
    "alarms": (Role.CONSUMER, alarms),
    "keep_tables": (Role.AUDITOR, lambda connection: connection.execute(KEEP_TABLES)),
    "lock_live": (Role.OPERATOR, shadow.lock_live),
}


async def events_of_status(settings: PipelineSettings) -> int:
    async with ROLES.engine(settings.history_database_url, Role.OPERATOR) as engine:
        return (await history_status(engine, None)).events


async def events_of_verify(settings: PipelineSettings) -> int:
    async with take_snapshots(ROLES.settings(settings, Role.AUDITOR)) as snapshots:
        return int(await fetch_value(snapshots.history, text("SELECT count(*) FROM history.transaction_events")))


LOOKS = {"status": events_of_status, "verify": events_of_verify}

WAITING = text("""
    SELECT 1 FROM pg_locks
    WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND NOT granted
        AND pid = coalesce(cast(:pid AS integer), pid)
""")
TAKEN = text("""
    SELECT relation::regclass::text AS name FROM pg_locks
    WHERE pid = :pid AND granted
        AND relation IN ('history.wallet_progress'::regclass, 'history.transaction_events'::regclass)
""")


# A busy machine must not change the outcome.
PATIENT_MS = 60_000


async def set_deadlock_timeout(engine: AsyncEngine, milliseconds: int) -> None:
    """Set it for sessions that begin later: no role of a process may set its own."""
    async with engine.begin() as connection:
        name = await connection.scalar(text("SELECT current_database()"))
        await connection.execute(text(f'ALTER DATABASE "{name}" SET deadlock_timeout = {milliseconds}'))


async def pid(connection: AsyncConnection) -> int:
    return int(await connection.scalar(text("SELECT pg_backend_pid()")) or 0)


async def until_waiting(connection: AsyncConnection, waiting_pid: int | None, eventually: Eventually) -> None:
    """Wait until the session waits for a lock; None means any session."""

    async def is_waiting() -> bool:
        return bool((await connection.execute(WAITING, {"pid": waiting_pid})).all())

    await eventually(is_waiting)


@pytest.fixture
async def engine(settings: PipelineSettings) -> AsyncIterator[AsyncEngine]:
    """A superuser's engine."""
    async with operator_engine(settings.history_database_url) as engine:
        yield engine


@pytest.fixture
async def operator(settings: PipelineSettings) -> AsyncIterator[AsyncEngine]:
    """An engine that logs in as an operator does."""
    async with ROLES.engine(settings.history_database_url, Role.OPERATOR) as engine:
        yield engine


@pytest.mark.parametrize("taker", TAKERS)
async def test_readers_and_the_swap_take_the_tables_in_one_order(
    settings: PipelineSettings, engine: AsyncEngine, eventually: Eventually, taker: str
) -> None:
    role, take = TAKERS[taker]
    await set_deadlock_timeout(engine, PATIENT_MS)
    async with (
        ROLES.engine(settings.history_database_url, role) as acting,
        engine.connect() as holder,
        acting.connect() as connection,
    ):
        # The second time the session has a plan, and takes the locks by it.
        for _ in range(2):
            await holder.execute(text("LOCK TABLE history.transaction_events IN ACCESS EXCLUSIVE MODE"))
            taker_pid = await pid(connection)
            taking = asyncio.create_task(take(connection))
            await until_waiting(holder, taker_pid, eventually)
            taken = await holder.scalars(TAKEN, {"pid": taker_pid})
            assert taken.all() == ["history.wallet_progress"]
            await holder.rollback()
            await taking
            await connection.rollback()


async def test_a_transaction_that_took_the_tables_in_another_order_gets_them_and_the_swap_waits(
    engine: AsyncEngine, operator: AsyncEngine, eventually: Eventually
) -> None:
    async with engine.connect() as reader, operator.connect() as swap, engine.connect() as observer:
        await reader.execute(text(f"SET LOCAL deadlock_timeout = {PATIENT_MS}"))
        reader_pid = await pid(reader)
        await reader.execute(text("SELECT 1 FROM history.transaction_events LIMIT 1"))
        await swap.execute(text("LOCK TABLE history.wallet_progress IN ACCESS EXCLUSIVE MODE"))
        reading = asyncio.create_task(reader.execute(text("SELECT 1 FROM history.wallet_progress LIMIT 1")))
        await until_waiting(observer, reader_pid, eventually)
        with pytest.raises(DBAPIError) as refusal:
            await shadow.lock_live(swap)
        assert sqlstate(refusal.value) == LOCK_NOT_AVAILABLE
        await swap.rollback()
        await reading


@pytest.mark.parametrize("deadlock_timeout_ms", [1000, 300, 1])
async def test_the_swap_gives_way_before_a_deadlock_is_looked_for_and_waits_for_an_autovacuum_to_be_ended(
    engine: AsyncEngine, operator: AsyncEngine, deadlock_timeout_ms: int
) -> None:
    await set_deadlock_timeout(engine, deadlock_timeout_ms)

    async def lock_timeout_ms() -> int:
        return int(await swap.scalar(text("SELECT setting FROM pg_settings WHERE name = 'lock_timeout'")) or 0)

    async with operator.connect() as swap:
        await shadow.keep_vacuum_out(swap)
        assert await lock_timeout_ms() > deadlock_timeout_ms
        await shadow.lock_live(swap)
        # Zero would mean no timeout. It counts for each of the two tables.
        assert 0 < await lock_timeout_ms() * 2 < max(deadlock_timeout_ms, 3)


@pytest.mark.parametrize("look", LOOKS)
async def test_a_snapshot_that_a_swap_keeps_waiting_sees_the_new_tables(
    settings: PipelineSettings, engine: AsyncEngine, eventually: Eventually, look: str
) -> None:
    """A snapshot from before the swap would show the new tables empty."""
    async with engine.connect() as swap:
        await shadow.lock_live(swap)
        looking = asyncio.create_task(LOOKS[look](settings))
        await until_waiting(swap, None, eventually)
        await swap.execute(text("SET LOCAL session_replication_role = replica"))
        await swap.execute(text("DELETE FROM history.transaction_events WHERE wallet_version > 1"))
        await swap.execute(text("UPDATE history.wallet_progress SET event_count = 1, max_version = 1"))
        await swap.commit()
        assert await looking == 7, "seven wallets, of one version each"
