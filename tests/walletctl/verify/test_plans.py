"""How PostgreSQL runs the sums where it expects millions of rows, each with a time of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.settings import PipelineSettings
from support.pipeline_acts import audit
from support.pipelines import api_engine, move_money, new_wallets, run_consumer, run_relay

Statement = tuple[str, tuple[Any, ...], str]
"""SQL, its parameters, and whether PostgreSQL was to sort where it would."""

SETTING = "set_config('enable_sort'"
MARKS = ("AS entry_count", "AS hashes GROUP BY", "AS digests GROUP BY")
SUMS = 5
PRETEND = text("""
    UPDATE pg_class SET reltuples = 10000000, relpages = 1
    WHERE oid IN ('wallet.wallet_transactions'::regclass, 'wallet.outbox'::regclass,
        'history.transaction_events'::regclass)
""")


@contextmanager
def recorded_statements() -> Iterator[list[Statement]]:
    statements: list[Statement] = []
    sorts = {}

    def record(connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if SETTING in statement:
            sorts[id(connection)] = parameters[0]
        statements.append((statement, tuple(parameters), sorts.get(id(connection), "on")))

    event.listen(Engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", record)


async def sorts_of_rows(connection: AsyncConnection, statement: Statement) -> int:
    """Return how many nodes of the plan sort anything but the groups that a node below has made."""
    query, parameters, sorts = statement
    await connection.execute(text("SELECT set_config('enable_sort', :sorts, true)"), {"sorts": sorts})
    plan = (await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {query}", parameters)).scalar_one()
    nodes, count = [(plan if isinstance(plan, list) else orjson.loads(plan))[0]["Plan"]], 0
    while nodes:
        node = nodes.pop()
        below = node.get("Plans", [])
        count += node["Node Type"] == "Sort" and below[0]["Node Type"] != "Aggregate"
        nodes += below
    return count


async def test_the_sums_sort_no_rows_however_many_times_the_tables_have(
    fresh: PipelineSettings, engine: AsyncEngine
) -> None:
    async with api_engine(fresh.database_url) as api:
        await move_money(api, await new_wallets(api), 1)
    await run_relay(fresh)
    await run_consumer(fresh)
    with recorded_statements() as statements:
        assert (await audit(fresh)).ok
    sums = [statement for statement in statements if any(mark in statement[0] for mark in MARKS)]
    assert len(sums) == SUMS
    async with engine.connect() as connection:
        await connection.execute(text("ANALYZE"))
        await connection.execute(PRETEND)
        assert [await sorts_of_rows(connection, statement) for statement in sums] == [0] * SUMS
        # The pretence is good: without the setting, rows would be sorted.
        eager = [(query, parameters, "on") for query, parameters, _ in sums]
        assert sum([await sorts_of_rows(connection, statement) for statement in eager]) > 0
        await connection.rollback()
