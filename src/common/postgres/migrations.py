"""Migrations of the schemas `wallet` and `history`, by Alembic."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.postgres.lock_waits import Tell, lock_first, migrator

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


def _scripts(schema: Schema) -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config(schema))


def head_revision(schema: Schema) -> str:
    """Return the newest revision of the schema's migrations."""
    head = _scripts(schema).get_current_head()
    assert head is not None
    return head


def is_newer(schema: Schema, current: str | None) -> bool:
    """Return whether a newer version has made this revision: these migrations do not know it."""
    known = _scripts(schema).walk_revisions()
    return current is not None and current not in {script.revision for script in known}


def pending_revisions(schema: Schema, current: str | None) -> list[Script]:
    """Return the migrations that the schema at revision `current` lacks, in the order in which they run.

    Raises:
        alembic.util.CommandError: these migrations do not know `current`: a newer version has made it.
    """
    newest_first = _scripts(schema).walk_revisions(current or "base", "head")
    return [script for script in reversed(list(newest_first)) if script.revision != current]


async def migrate(
    engine: AsyncEngine, schema: Schema, revision: Literal["head", "base"] = "head", tell: Tell = lambda _: None
) -> None:
    """Migrate the schema up to its newest revision, or down to none.

    Each migration up has a transaction of its own. A second migrator waits for the first.

    Args:
        engine: names the database.
        schema: which of the two.
        revision: the newest, or none.
        tell: gets a line for each wait for a lock.

    Raises:
        LocksUnavailableError: other sessions held a lock for 60 seconds.
        sqlalchemy.exc.DBAPIError: the database is away or refuses.
    """
    async with migrator(engine, tell) as one:
        current = await current_revision(engine, schema)
        if revision == "base":
            await one.run(partial(_run, schema, command.downgrade, "base"))
            return
        for script in pending_revisions(schema, current):
            await one.run(partial(_run, schema, command.upgrade, script.revision))


async def _run(
    schema: Schema,
    act: Callable[[Config, str], None],
    revision: str,
    connection: AsyncConnection,
    contended: Sequence[str],
) -> None:
    def run(connection: Connection) -> None:
        config = alembic_config(schema)
        config.attributes["connection"] = connection
        config.attributes["lock_first"] = partial(lock_first, connection, contended)
        act(config, revision)

    await connection.run_sync(run)


def title(script: Script) -> str:
    """Return the revision and what it does, in a line."""
    return f"{script.revision}: {script.doc}"


async def current_revision(engine: AsyncEngine, schema: Schema) -> str | None:
    """Return the schema's revision, or None before the first migration and after a downgrade to `"base"`."""
    async with engine.connect() as connection:
        table = await connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"{schema}.alembic_version"})
        if table is None:
            return None
        revision = await connection.scalar(text(f"SELECT version_num FROM {schema}.alembic_version"))  # noqa: S608
    return None if revision is None else str(revision)
