"""The tables that are built beside the live ones, and how they take their place.

They are made from the catalogue, not from `common.tables`: an index or a grant that an operator added is kept.
"""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from walletctl.rebuild import queries

# In the order in which the readers' statements take them.
TABLES: Final = ("wallet_progress", "transaction_events")
_ALL: Final = (*TABLES, "dead_letters")


async def create(connection: AsyncConnection) -> None:
    """Make empty ones; what a rebuild that died left behind goes."""
    async with connection.begin():
        for table in _ALL:
            await _run(connection, f"DROP TABLE IF EXISTS history.{table}_rebuild")
            await _create(connection, table)


async def _create(connection: AsyncConnection, table: str) -> None:
    live, shadow = f"history.{table}", f"history.{table}_rebuild"
    options = await queries.scalar(connection, queries.OPTIONS, name=live)
    storage = f" WITH ({options})" if options else ""
    await _run(connection, f"CREATE TABLE {shadow} (LIKE {live} INCLUDING ALL EXCLUDING INDEXES){storage}")
    for index in await queries.every(connection, queries.INDEXES, name=live):
        name = _shadow_name(index.name)
        if index.made_by:
            await _run(connection, f"ALTER TABLE {shadow} ADD CONSTRAINT {name} {index.made_by}")
        else:
            told, meant = f" INDEX {index.name} ON {live} ", f" INDEX {name} ON {shadow} "
            assert told in index.definition, index.definition
            await _run(connection, index.definition.replace(told, meant, 1))
    for grant in await queries.every(connection, queries.GRANTS, name=live):
        await _run(connection, f"GRANT {grant.privilege} ON {shadow} TO {grant.grantee}{grant.more}")


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
    """Put the new tables in the place of the live ones, in the caller's transaction, under the same names."""
    for table in TABLES:
        await _run(connection, f"DROP TABLE history.{table}")
        for index in await queries.every(connection, queries.INDEXES, name=f"history.{table}_rebuild"):
            await _run(connection, f"ALTER INDEX history.{index.name} RENAME TO {_live_name(index.name)}")
        await _run(connection, f"ALTER TABLE history.{table}_rebuild RENAME TO {table}")
    await connection.execute(queries.COPY_DEAD_LETTERS)
    await _run(connection, "DROP TABLE history.dead_letters_rebuild")


async def drop(connection: AsyncConnection) -> None:
    """Remove the shadow tables."""
    async with connection.begin():
        for table in _ALL:
            await _run(connection, f"DROP TABLE IF EXISTS history.{table}_rebuild")


def _shadow_name(name: str) -> str:
    return f'{name[:-1]}_rebuild"' if name.endswith('"') else f"{name}_rebuild"


def _live_name(name: str) -> str:
    return f'{name.removesuffix(chr(34)).removesuffix("_rebuild")}"' if name.endswith('"') else name[: -len("_rebuild")]


async def _run(connection: AsyncConnection, statement: str) -> None:
    await connection.exec_driver_sql(statement)
