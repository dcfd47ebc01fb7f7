"""A migrator waits for locks such that requests go on, and says what it waits for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.postgres import lock_waits, online_ddl
from common.postgres.lock_waits import LocksUnavailableError, lock_first, migrator
from common.postgres.migrations import current_revision, head_revision, migrate
from common.postgres.online_ddl import build_index, without_transaction
from support.databases import patient_engine
from walletctl.console import Exit
from walletctl.failures import explain

READER = "a long report"


@asynccontextmanager
async def reader(url: str, statement: str) -> AsyncIterator[asyncpg.Connection]:
    """A session whose transaction stays open until the end of the block."""
    connection = await asyncpg.connect(url, server_settings={"application_name": READER})
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.execute(statement)
    try:
        yield connection
    finally:
        await connection.close()


async def add_column(connection: AsyncConnection, contended: Sequence[str]) -> Sequence[str]:
    async with connection.begin():
        await connection.run_sync(lock_first, contended)
        await connection.execute(text("ALTER TABLE wallet.outbox ADD COLUMN extra text"))
    return contended


async def indexes(engine: AsyncEngine, condition: str) -> list[tuple[str, int]]:
    """Return the name and the identifier of each index that meets the condition."""
    query = f"SELECT indexrelid::regclass::text, indexrelid::bigint FROM pg_index WHERE {condition}"
    async with engine.connect() as connection:
        return [(name, oid) for name, oid in await connection.execute(text(query))]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrators give up soon, after three attempts."""
    monkeypatch.setattr(lock_waits, "WAIT_SECONDS_MAX", 2.0)
    monkeypatch.setattr(online_ddl, "WAIT_SECONDS_MAX", 2.0)


async def test_while_a_migration_waits_for_a_reader_requests_go_on_and_it_ends_after_the_reader(
    engine: AsyncEngine, database_url: str, eventually: Callable[..., Awaitable[Any]]
) -> None:
    told: list[str] = []
    async with migrator(engine, told.append) as one:
        async with reader(database_url, "SELECT FROM wallet.outbox") as report:
            pid = report.get_server_pid()
            adding = asyncio.create_task(one.run(add_column))

            async def has_said_for_whom_it_waits() -> bool:
                return any(f"pid {pid} ({READER}, role " in line and "holds wallet.outbox" in line for line in told)

            await eventually(has_said_for_whom_it_waits)
            async with engine.begin() as request:
                # It ends while the reader and the migration go on: nothing else lets it pass.
                await request.execute(text("LOCK TABLE wallet.outbox IN ROW EXCLUSIVE MODE"))
            assert not adding.done()
        assert await adding == ["wallet.outbox"]


@pytest.mark.usefixtures("impatient")
async def test_a_migrator_that_gives_up_names_the_session_its_age_and_the_way_out(
    engine: AsyncEngine, database_url: str
) -> None:
    async with reader(database_url, "SELECT FROM wallet.outbox") as report, migrator(engine, lambda _: None) as one:
        with pytest.raises(LocksUnavailableError) as caught:
            await one.run(add_column)
        pid = report.get_server_pid()
    explained = explain(caught.value)
    assert explained is not None
    line, code = explained
    assert code == Exit.UNREACHABLE
    assert f"pid {pid} ({READER}, role " in line
    assert ", for " in line
    assert f"SELECT pg_terminate_backend({pid})" in line


@pytest.mark.usefixtures("impatient")
async def test_a_second_migrator_that_gives_up_names_the_first(engine: AsyncEngine) -> None:
    async with migrator(engine, lambda _: None) as one:
        with pytest.raises(LocksUnavailableError, match=rf"pid {one.pid} .* holds the right to migrate"):
            async with migrator(engine, lambda _: None):
                pass


@pytest.mark.usefixtures("impatient")
async def test_a_migration_that_gave_up_while_it_built_an_index_is_completed_by_the_next_run(
    empty_database_url: str,
) -> None:
    async with patient_engine(empty_database_url) as engine:
        async with reader(empty_database_url, "SELECT 1"):
            with pytest.raises(LocksUnavailableError, match=f"{READER}.* holds a transaction that must end first"):
                await migrate(engine, "wallet")
        stopped_at = await current_revision(engine, "wallet")
        left_behind = await indexes(engine, "NOT indisvalid")
        await migrate(engine, "wallet")
        assert await current_revision(engine, "wallet") == head_revision("wallet") != stopped_at
        assert await indexes(engine, "NOT indisvalid") == []
    assert stopped_at == "wallet_0001"
    assert [name for name, _ in left_behind] == ["wallet.outbox_parked_new"]


async def test_an_index_that_an_earlier_attempt_has_built_is_not_built_again(engine: AsyncEngine) -> None:
    def build(connection: Connection) -> None:
        context = MigrationContext.configure(connection)
        with Operations.context(context), context.begin_transaction(), without_transaction():
            build_index("extra_idx", "outbox", ["created_at"], schema="wallet")

    built = []
    for _ in range(2):
        async with engine.connect() as connection:
            await connection.run_sync(build)
        built.append(await indexes(engine, "indexrelid = to_regclass('wallet.extra_idx')"))
    assert built[0] == built[1] != []


@pytest.mark.parametrize(
    "migration", sorted((Path(__file__).parents[3] / "alembic").glob("*/*.py")), ids=lambda path: path.stem
)
def test_no_migration_changes_how_long_it_waits_for_a_lock(migration: Path) -> None:
    assert "timeout" not in migration.read_text()
