import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import create_engine
from common.postgres.migrations import SCHEMAS, Schema, current_revision, head_revision, migrate
from common.tables import metadata
from support.schema_objects import OBJECTS

TABLES_CANNOT_SAY = {"function", "trigger"}


async def objects_in(engine: AsyncEngine, *schemas: str) -> set[tuple[str, ...]]:
    async with engine.connect() as connection:
        rows = (await connection.execute(OBJECTS, {"schemas": list(schemas)})).all()
    return {tuple(row) for row in rows if not any("alembic_version" in str(part) for part in row)}


async def migrate_all(engine: AsyncEngine, revision: Literal["head", "base"] = "head") -> None:
    for schema in SCHEMAS:
        await migrate(engine, schema, revision)


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(empty_database_url, "tests")
    yield engine
    await engine.dispose()


async def test_alembic_sees_no_difference_between_the_migrations_and_the_tables(engine: AsyncEngine) -> None:
    def compare(connection: Connection) -> list[Any]:
        def ours(name: str | None, kind: str, _: Any) -> bool:
            return (name in SCHEMAS) if kind == "schema" else name != "alembic_version"

        options = {"include_schemas": True, "include_name": ours, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(compare) == []


async def test_the_migrations_create_exactly_the_declared_tables_with_every_check_and_index(
    engine: AsyncEngine, empty: AsyncEngine
) -> None:
    async with empty.begin() as connection:
        for schema in SCHEMAS:
            await connection.execute(text(f"CREATE SCHEMA {schema}"))
        await connection.run_sync(metadata.create_all)
    migrated = {item for item in await objects_in(engine, *SCHEMAS) if item[0] not in TABLES_CANNOT_SAY}
    declared = await objects_in(empty, *SCHEMAS)
    assert migrated == declared
    assert len({item for item in declared if item[0] == "constraint"}) > 20


async def test_downgrade_drops_everything_and_upgrade_creates_everything_again(empty: AsyncEngine) -> None:
    await migrate_all(empty)
    made = await objects_in(empty, *SCHEMAS)
    await migrate_all(empty, "base")
    assert await objects_in(empty, *SCHEMAS) == set()
    assert [await current_revision(empty, schema) for schema in SCHEMAS] == [None, None]
    await migrate_all(empty)
    assert await objects_in(empty, *SCHEMAS) == made


async def test_nothing_is_ever_created_in_public(empty: AsyncEngine) -> None:
    before = await objects_in(empty, "public")
    await migrate_all(empty)
    assert await objects_in(empty, "public") == before
    await migrate_all(empty, "base")
    assert await objects_in(empty, "public") == before


async def test_the_outbox_has_its_64_lanes_from_the_start_and_again_after_a_downgrade(empty: AsyncEngine) -> None:
    for _ in range(2):
        await migrate_all(empty)
        async with empty.connect() as connection:
            lanes = (await connection.execute(text("SELECT lane FROM wallet.outbox_lanes ORDER BY lane"))).scalars()
            assert list(lanes) == list(range(64))
        await migrate_all(empty, "base")


async def test_two_migrators_at_once_both_succeed(empty: AsyncEngine, empty_database_url: str) -> None:
    other = create_engine(empty_database_url, "tests")
    await asyncio.gather(migrate_all(empty), migrate_all(other), migrate_all(empty), migrate_all(other))
    await other.dispose()
    assert [await current_revision(empty, schema) for schema in SCHEMAS] == [head_revision(each) for each in SCHEMAS]


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_each_schema_can_live_in_a_database_of_its_own(empty: AsyncEngine, schema: Schema) -> None:
    (other,) = set(SCHEMAS) - {schema}
    await migrate(empty, schema)
    assert await current_revision(empty, schema) == head_revision(schema)
    assert await current_revision(empty, other) is None
    assert {item[1] for item in await objects_in(empty, *SCHEMAS)} == {schema}


async def test_migrating_again_changes_nothing(empty: AsyncEngine) -> None:
    await migrate_all(empty)
    made = await objects_in(empty, *SCHEMAS)
    await migrate_all(empty)
    assert await objects_in(empty, *SCHEMAS) == made


async def test_an_unmigrated_schema_has_no_revision(empty: AsyncEngine) -> None:
    assert [await current_revision(empty, schema) for schema in SCHEMAS] == [None, None]
