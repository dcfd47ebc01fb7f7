"""The tables that a rebuild fills beside the live ones, and how they take the place of those.

They are created from the catalogue, not from `common.tables`. So they keep what an operator added: indexes, statistics,
grants, the owner, comments, triggers, policies, the replica identity. What they cannot keep is named before the rebuild
reads anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from common.postgres.reading import fetch_value
from history_consumer.rebuild import catalogue, queries
from history_consumer.rebuild.catalogue import Index, Statistics, TableDescription
from history_consumer.rebuild.errors import InTheWayError

# In the order in which the readers' statements lock them.
TABLES: Final = ("wallet_progress", "transaction_events")
_ALL: Final = (*TABLES, "dead_letters")


@dataclass(frozen=True, slots=True)
class LiveTables:
    """The live tables at one moment: the revision of their schema, and the description of each."""

    revision: str
    descriptions: Mapping[str, TableDescription]


async def create(connection: AsyncConnection) -> LiveTables:
    """Create empty tables like the live ones, and return what those are like. Drop tables that a failed rebuild left.

    Raises:
        InTheWayError: an object depends on the live tables and would keep them from being dropped.
    """
    async with connection.begin():
        live = await describe(connection)
        if in_the_way := sorted({what for table in live.descriptions.values() for what in table.in_the_way}):
            correction = "Save their definitions, drop them, rebuild, and create them again"
            raise InTheWayError(f"in the way of new tables: {', '.join(in_the_way)}. {correction}")
        for table in _ALL:
            await _run(connection, f"DROP TABLE IF EXISTS history.{table}_rebuild")
            description = live.descriptions.get(table) or await _describe_scratch(connection, table)
            await _create(connection, table, description)
    return live


async def _describe_scratch(connection: AsyncConnection, table: str) -> TableDescription:
    """Describe a table whose copy takes no place, and so needs neither the owner nor the grants."""
    return replace(await catalogue.describe(connection, _live(table)), early=(), late=())


async def describe(connection: AsyncConnection) -> LiveTables:
    """Return what the live tables are like, in the caller's transaction."""
    revision = await fetch_value(connection, queries.REVISION)
    return LiveTables(revision, {table: await catalogue.describe(connection, _live(table)) for table in TABLES})


async def _create(connection: AsyncConnection, table: str, description: TableDescription) -> None:
    live, shadow = _live(table), f"{_live(table)}_rebuild"
    storage = f" WITH ({description.options})" if description.options else ""
    like = f"LIKE {live} INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS"
    await _run(connection, f"CREATE TABLE {shadow} ({like}){storage}")
    for number, index in enumerate(description.indexes):
        await _create_index(connection, table, index, f"{table}_rebuild_i{number}")
    for number, statistics in enumerate(description.statistics):
        name = f"history.{table}_rebuild_s{number}"
        definition = _renamed(statistics.definition, f"STATISTICS {statistics.name} ", f"STATISTICS {name} ")
        await _run(connection, _renamed(definition, f" FROM {live}", f" FROM {shadow}"))
        if statistics.target is not None:
            await _run(connection, f"ALTER STATISTICS {name} SET STATISTICS {statistics.target}")
    for before, after in description.early:
        await _run(connection, f"{before}{shadow}{after}")
    # A rehearsal: a statement that fails must fail now, and not in the swap after hours.
    async with connection.begin_nested() as rehearsal:
        for before, after in description.late:
            await _run(connection, f"{before}{shadow}{after}")
        await rehearsal.rollback()


async def _create_index(connection: AsyncConnection, table: str, index: Index, name: str) -> None:
    """Create an index like a live one, with a short name: PostgreSQL would cut a long one with a suffix at 63 bytes."""
    live, shadow = _live(table), f"{_live(table)}_rebuild"
    if index.made_by:
        await _run(connection, f"ALTER TABLE {shadow} ADD CONSTRAINT {name} {index.made_by}")
    else:
        old, new = f" INDEX {index.name} ON {live} ", f" INDEX {name} ON {shadow} "
        await _run(connection, _renamed(index.definition, old, new))
    if index.comment:
        await _run(connection, f"COMMENT ON INDEX history.{name} IS {index.comment}")
    if index.constraint_comment:
        await _run(connection, f"COMMENT ON CONSTRAINT {name} ON {shadow} IS {index.constraint_comment}")
    if index.identifies:
        await _run(connection, f"ALTER TABLE {shadow} REPLICA IDENTITY USING INDEX {name}")
    if index.clusters:
        await _run(connection, f"ALTER TABLE {shadow} CLUSTER ON {name}")


def _renamed(statement: str, old: str, new: str) -> str:
    assert old in statement or statement.endswith(old.rstrip()), statement
    return statement.replace(old, new, 1)


async def analyze(connection: AsyncConnection) -> None:
    """Give the planner statistics of the new tables before the first reader."""
    async with connection.begin():
        for table in TABLES:
            await _run(connection, f"ANALYZE history.{table}_rebuild")


async def keep_vacuum_out(connection: AsyncConnection) -> None:
    """Keep vacuums and changes of the live tables waiting until the transaction ends. Readers and writers go on.

    PostgreSQL ends an autovacuum that blocks a lock, but only after the lock has waited for `deadlock_timeout`.

    Raises:
        sqlalchemy.exc.DBAPIError: an operator's transaction holds one of the tables (lock_not_available).
    """
    await _lock(connection, "SHARE UPDATE EXCLUSIVE", deadlock_timeouts=2)


async def lock_live(connection: AsyncConnection) -> None:
    """Keep readers and writers waiting until the transaction ends.

    A transaction that locks the tables in another order wins. This one waits for both tables for less than
    `deadlock_timeout`: after that, PostgreSQL would look for a deadlock, and end the transaction that waits longest.

    Raises:
        sqlalchemy.exc.DBAPIError: another transaction holds one of the tables (lock_not_available).
    """
    await _lock(connection, "ACCESS EXCLUSIVE", deadlock_timeouts=1 / 3)


async def _lock(connection: AsyncConnection, mode: str, *, deadlock_timeouts: float) -> None:
    await fetch_value(connection, queries.SET_LOCK_TIMEOUT, deadlock_timeouts=deadlock_timeouts)
    await _run(connection, f"LOCK TABLE {', '.join(f'history.{table}' for table in TABLES)} IN {mode} MODE")


async def swap(connection: AsyncConnection) -> None:
    """Put the new tables in the place of the live ones, under the same names, in the caller's transaction.

    The live tables must be as they were when `create` ran: the new indexes are numbered in the order of the live ones.
    """
    for table in TABLES:
        description = await catalogue.describe(connection, _live(table))
        await _run(connection, f"DROP TABLE {_live(table)}")
        for number, index in enumerate(description.indexes):
            await _run(connection, f"ALTER INDEX history.{table}_rebuild_i{number} RENAME TO {index.name}")
        for number, statistics in enumerate(description.statistics):
            await _restore_statistics(connection, f"{table}_rebuild_s{number}", statistics)
        await _run(connection, f"ALTER TABLE {_live(table)}_rebuild RENAME TO {table}")
        for before, after in description.late:
            await _run(connection, f"{before}{_live(table)}{after}")
    await connection.execute(queries.COPY_DEAD_LETTERS)
    await _run(connection, "DROP TABLE history.dead_letters_rebuild")


async def _restore_statistics(connection: AsyncConnection, name: str, statistics: Statistics) -> None:
    await _run(connection, f"ALTER STATISTICS history.{name} RENAME TO {statistics.short_name}")
    schema = statistics.name.removesuffix(f".{statistics.short_name}")
    if schema != "history":
        await _run(connection, f"ALTER STATISTICS history.{statistics.short_name} SET SCHEMA {schema}")


async def drop(connection: AsyncConnection) -> None:
    """Drop the new tables."""
    async with connection.begin():
        for table in _ALL:
            await _run(connection, f"DROP TABLE IF EXISTS history.{table}_rebuild")


def _live(table: str) -> str:
    return f"history.{table}"


async def _run(connection: AsyncConnection, statement: str) -> None:
    await connection.exec_driver_sql(statement)
