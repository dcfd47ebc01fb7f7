"""Migrations of the schemas `wallet` and `history`, by Alembic."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Schema = Literal["wallet", "history"]
SCHEMAS: Final[tuple[Schema, Schema]] = ("wallet", "history")

_INSTALLED = Path(__file__).parent / "migrations"
_IN_REPOSITORY = Path(__file__).parents[3] / "alembic"


def alembic_config(schema: Schema) -> Config:
    """Return Alembic's configuration for one schema's migrations."""
    directory = _INSTALLED if _INSTALLED.is_dir() else _IN_REPOSITORY
    config = Config()
    config.set_main_option("script_location", str(directory))
    config.set_main_option("version_locations", str(directory / schema))
    config.set_main_option("path_separator", "os")
    config.attributes["schema"] = schema
    return config


def head_revision(schema: Schema) -> str:
    """Return the newest revision of the schema's migrations."""
    head = ScriptDirectory.from_config(alembic_config(schema)).get_current_head()
    assert head is not None
    return head


async def migrate(engine: AsyncEngine, schema: Schema, revision: str = "head") -> None:
    """Migrate the schema to `revision`: up, or down for `"base"`. A second migrator waits for the first.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away or refuses, or another transaction held a lock for 10 seconds.
    """

    def run(connection: Connection) -> None:
        config = alembic_config(schema)
        config.attributes["connection"] = connection
        if revision == "base":
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)

    async with migration(engine) as connection:
        await connection.run_sync(run)


@asynccontextmanager
async def migration(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Lend a transaction to a migrator. A second migrator of the same database waits for its end."""
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('wallet migrations', 0))"))
        await connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        await connection.execute(text("SET LOCAL statement_timeout = '0'"))
        yield connection


async def current_revision(engine: AsyncEngine, schema: Schema) -> str | None:
    """Return the schema's revision, or None before the first migration and after a downgrade to `"base"`."""
    async with engine.connect() as connection:
        table = await connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"{schema}.alembic_version"})
        if table is None:
            return None
        revision = await connection.scalar(text(f"SELECT version_num FROM {schema}.alembic_version"))  # noqa: S608
    return None if revision is None else str(revision)
