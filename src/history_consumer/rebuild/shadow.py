"""The tables that are built beside the live ones, and how they take their place.

They are made from the catalogue, not from `common.tables`: what an operator added is kept (indexes, statistics, grants,
the owner, comments, triggers, policies, the replica identity), and what can't be kept is named before anything is read.
"""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from history_consumer.rebuild import catalogue, queries
from history_consumer.rebuild.catalogue import Index, Statistics, TableDescription
from history_consumer.rebuild.errors import InTheWayError

# In the order in which the readers' statements take them.
TABLES: Final = ("wallet_progress", "transaction_events")
_ALL: Final = (*TABLES, "dead_letters")


async def create(connection: AsyncConnection) -> dict[str, TableDescription]:
    """Make empty ones, and return how the live ones are; what a rebuild that died left behind goes.

    Raises:
        InTheWayError: something hangs on the live tables that would keep them from being dropped.
    """
    async with connection.begin():
        described = await describe(connection)
        if in_the_way := sorted({what for table in described.values() for what in table.in_the_way}):
            way_out = "Keep the definitions, drop these, rebuild, and make them again"
            raise InTheWayError(f"in the way of new tables: {', '.join(in_the_way)}. {way_out}")
        for table in _ALL:
            await _run(connection, f"DROP TABLE IF EXISTS history.{table}_rebuild")
            await _create(connection, table, described.get(table) or await catalogue.describe(connection, _live(table)))
    return described


async def describe(connection: AsyncConnection) -> dict[str, TableDescription]:
    """Return what the live tables have, in the caller's transaction: the swap wants it as it was at the start."""
    return {table: await catalogue.describe(connection, _live(table)) for table in TABLES}


async def _create(connection: AsyncConnection, table: str, described: TableDescription) -> None:
    live, shadow = _live(table), f"{_live(table)}_rebuild"
    storage = f" WITH ({described.options})" if described.options else ""
    like = f"LIKE {live} INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS"
    await _run(connection, f"CREATE TABLE {shadow} ({like}){storage}")
    for number, index in enumerate(described.indexes):
        await _create_index(connection, table, index, f"{table}_rebuild_i{number}")
    for number, statistics in enumerate(described.statistics):
        name = f"history.{table}_rebuild_s{number}"
        definition = _renamed(statistics.definition, f"STATISTICS {statistics.name} ", f"STATISTICS {name} ")
        await _run(connection, _renamed(definition, f" FROM {live}", f" FROM {shadow}"))
        if statistics.target is not None:
            await _run(connection, f"ALTER STATISTICS {name} SET STATISTICS {statistics.target}")
    for before, after in described.early:
        await _run(connection, f"{before}{shadow}{after}")
    # A rehearsal: what can't be made must not be found out after hours.
    async with connection.begin_nested() as rehearsal:
        for before, after in described.late:
            await _run(connection, f"{before}{shadow}{after}")
        await rehearsal.rollback()


async def _create_index(connection: AsyncConnection, table: str, index: Index, name: str) -> None:
    """Make an index like a live one, under a name of its own: with a suffix, a long name would be cut to 63 bytes."""
    live, shadow = _live(table), f"{_live(table)}_rebuild"
    if index.made_by:
        await _run(connection, f"ALTER TABLE {shadow} ADD CONSTRAINT {name} {index.made_by}")
    else:
        told, meant = f" INDEX {index.name} ON {live} ", f" INDEX {name} ON {shadow} "
        await _run(connection, _renamed(index.definition, told, meant))
    if index.comment:
        await _run(connection, f"COMMENT ON INDEX history.{name} IS {index.comment}")
    if index.constraint_comment:
        await _run(connection, f"COMMENT ON CONSTRAINT {name} ON {shadow} IS {index.constraint_comment}")
    if index.identifies:
        await _run(connection, f"ALTER TABLE {shadow} REPLICA IDENTITY USING INDEX {name}")
    if index.clusters:
        await _run(connection, f"ALTER TABLE {shadow} CLUSTER ON {name}")


def _renamed(statement: str, told: str, meant: str) -> str:
    assert told in statement or statement.endswith(told.rstrip()), statement
    return statement.replace(told, meant, 1)


async def analyze(connection: AsyncConnection) -> None:
    """Let the planner know the new tables before anybody reads them."""
    async with connection.begin():
        for table in TABLES:
            await _run(connection, f"ANALYZE history.{table}_rebuild")


async def keep_vacuum_out(connection: AsyncConnection) -> None:
    """Let nobody vacuum or alter the live tables until the transaction ends; readers and writers go on.

    PostgreSQL ends an autovacuum that is in the way, but only of who waits for longer than `deadlock_timeout`.

    Raises:
        sqlalchemy.exc.DBAPIError: an operator has one of them (lock_not_available).
    """
    await _lock(connection, "SHARE UPDATE EXCLUSIVE", deadlock_timeouts=2)


async def lock_live(connection: AsyncConnection) -> None:
    """Keep readers and writers waiting until the transaction ends.

    Who took the tables in another order gets them: this waits for both of them for less than `deadlock_timeout`, after
    which PostgreSQL would look for a deadlock and end whose wait began first.

    Raises:
        sqlalchemy.exc.DBAPIError: somebody has one of them (lock_not_available).
    """
    await _lock(connection, "ACCESS EXCLUSIVE", deadlock_timeouts=1 / 3)


async def _lock(connection: AsyncConnection, mode: str, *, deadlock_timeouts: float) -> None:
    await queries.scalar(connection, queries.SET_LOCK_TIMEOUT, deadlock_timeouts=deadlock_timeouts)
    await _run(connection, f"LOCK TABLE {', '.join(f'history.{table}' for table in TABLES)} IN {mode} MODE")


async def swap(connection: AsyncConnection) -> None:
    """Put the new tables in the place of the live ones, in the caller's transaction, under the same names.

    The live tables must be as they were when the new ones were made: then the n-th index is the n-th.
    """
    for table in TABLES:
        described = await catalogue.describe(connection, _live(table))
        await _run(connection, f"DROP TABLE {_live(table)}")
        for number, index in enumerate(described.indexes):
            await _run(connection, f"ALTER INDEX history.{table}_rebuild_i{number} RENAME TO {index.name}")
        for number, statistics in enumerate(described.statistics):
            await _restore_statistics(connection, f"{table}_rebuild_s{number}", statistics)
        await _run(connection, f"ALTER TABLE {_live(table)}_rebuild RENAME TO {table}")
        for before, after in described.late:
            await _run(connection, f"{before}{_live(table)}{after}")
    await connection.execute(queries.COPY_DEAD_LETTERS)
    await _run(connection, "DROP TABLE history.dead_letters_rebuild")


async def _restore_statistics(connection: AsyncConnection, name: str, statistics: Statistics) -> None:
    await _run(connection, f"ALTER STATISTICS history.{name} RENAME TO {statistics.short_name}")
    schema = statistics.name.removesuffix(f".{statistics.short_name}")
    if schema != "history":
        await _run(connection, f"ALTER STATISTICS history.{statistics.short_name} SET SCHEMA {schema}")


async def drop(connection: AsyncConnection) -> None:
    """Remove the shadow tables."""
    async with connection.begin():
        for table in _ALL:
            await _run(connection, f"DROP TABLE IF EXISTS history.{table}_rebuild")


def _live(table: str) -> str:
    return f"history.{table}"


async def _run(connection: AsyncConnection, statement: str) -> None:
    await connection.exec_driver_sql(statement)
