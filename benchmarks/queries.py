"""The benchmark's SQL, and functions that run it, each with its own connection."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

BENCH_SCHEMA: Final = (Path(__file__).parent / "sql" / "bench.sql").read_text()

PENDING: Final = "SELECT count(*) FROM wallet.outbox WHERE published_at IS NULL AND parked_at IS NULL"
WALLET_IDS: Final = "SELECT bench.wallet_id(number) FROM generate_series(1, $1::bigint) AS number"
ANSWERED: Final = "SELECT count(*) FROM wallet.idempotency_keys WHERE reply_status = 200"
ENTRIES: Final = "SELECT count(*) FROM wallet.wallet_transactions"
MOVEMENTS: Final = "SELECT count(*) FROM wallet.wallet_transactions WHERE entry = 1"
LANES: Final = "SELECT FROM wallet.outbox_lanes ORDER BY lane FOR UPDATE"
NEXT_OFFSETS: Final = "SELECT coalesce(sum(next_offset), 0)::bigint FROM history.processed_offsets"
SETTINGS: Final = """
    SELECT name, current_setting(name) FROM pg_settings
    WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'server_version', 'shared_buffers', 'wal_level')
"""

NOW: Final = "SELECT clock_timestamp()"

# The commit time of each transfer. A ledger row is never updated, so its xmin is the transfer's transaction.
COMMITTED: Final = """
    SELECT transaction_id, created_at,
        extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS committed_at
    FROM wallet.wallet_transactions WHERE entry = 1 AND type = 'TRANSFER' AND created_at > $1
"""

# The seconds from the transfer's commit to the commit of its history rows.
VISIBLE_SECONDS: Final = """
    SELECT extract(epoch FROM
        pg_xact_commit_timestamp(events.xmin) - pg_xact_commit_timestamp(entries.xmin)
    )::float8
    FROM wallet.wallet_transactions AS entries
    JOIN history.transaction_events AS events USING (wallet_id, wallet_version)
    WHERE entries.type = 'TRANSFER' AND entries.created_at > $1
"""

# Movements that shared a commit, on average. A transaction is known by its commit's time, whichever program wrote it.
MOVEMENTS_A_COMMIT: Final = """
    SELECT count(*)::float8 / count(DISTINCT pg_xact_commit_timestamp(xmin))
    FROM wallet.wallet_transactions WHERE entry = 1 AND created_at > $1
"""

# A backlog for Debezium's slot, which sees only rows that are inserted after the slot was created. Transactions of a
# thousand rows are small enough for the decoder's memory.
COPY_BACKLOG: Final = "CREATE TABLE bench.backlog AS SELECT * FROM wallet.outbox ORDER BY id"
EMPTY_OUTBOX: Final = "TRUNCATE wallet.outbox"
REFILL_OUTBOX: Final = """
DO $$
DECLARE
    first_id bigint;
BEGIN
    FOR first_id IN SELECT generate_series(min(id), max(id), 1000) FROM bench.backlog LOOP
        INSERT INTO wallet.outbox OVERRIDING SYSTEM VALUE
        SELECT * FROM bench.backlog WHERE id BETWEEN first_id AND first_id + 999 ORDER BY id;
        COMMIT;
    END LOOP;
END $$
"""
MAKE_SLOT: Final = "SELECT pg_create_logical_replication_slot($1::text, 'pgoutput')"
# True when there is no slot left to drop.
DROP_SLOT: Final = """
    WITH dropped AS MATERIALIZED (
        SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'bench' AND NOT active
    )
    SELECT count(*) = 0 AND NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = 'bench') FROM dropped
"""
SLOT_IS_ACTIVE: Final = "SELECT coalesce(bool_or(active), false) FROM pg_replication_slots WHERE slot_name = $1"
MAKE_PUBLICATION: Final = "CREATE PUBLICATION bench FOR TABLE wallet.outbox"

# The rows and the time of the relay's reads of pending rows, recognised without knowing its statements.
TRACK_STATEMENTS: Final = """
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET pg_stat_statements.track = top', current_database());
END $$
"""
CLAIMED: Final = """
    SELECT max(rows)::float8 AS rows, sum(total_exec_time)::float8 / 1e3 AS seconds FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND query ~* '^\\s*(SELECT|WITH)' AND query ~ 'published_at IS NULL' AND query !~ 'count'
"""


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def run(url: str, *statements: str) -> None:
    """Run statements, each in its own transaction, unless the statement commits itself. Without timeouts."""

    async def go() -> None:
        async with _connected(url) as connection:
            for statement in statements:
                await connection.execute(statement)

    asyncio.run(go())


@contextmanager
def held(url: str, statement: str) -> Iterator[None]:
    """Hold the locks of a statement during the block."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url))
        try:
            runner.run(connection.execute(f"BEGIN; {statement}"))
            yield
        finally:
            runner.run(connection.close())


def fetch(url: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
    """Return the rows of one query."""

    async def go() -> list[asyncpg.Record]:
        async with _connected(url) as connection:
            rows: list[asyncpg.Record] = await connection.fetch(query, *arguments)
            return rows

    return asyncio.run(go())


def value(url: str, query: str, *arguments: Any) -> Any:
    """Return the first value of the first row."""
    return asyncio.run(fetch_value(url, query, *arguments))


async def fetch_value(url: str, query: str, *arguments: Any) -> Any:
    """Return the first value of the first row, from within an event loop."""
    async with _connected(url) as connection:
        return await connection.fetchval(query, *arguments)


def poll(
    url: str, query: str, is_over: Callable[[Any], bool], *, pause_seconds: float, timeout_seconds: float
) -> list[tuple[float, Any]]:
    """Run the query repeatedly until `is_over` of its value; return each value with its time.

    Raises:
        TimeoutError: it isn't over in time.
    """

    async def go() -> list[tuple[float, Any]]:
        found: list[tuple[float, Any]] = []
        async with asyncio.timeout(timeout_seconds), _connected(url) as connection:
            while not found or not is_over(found[-1][1]):
                await asyncio.sleep(pause_seconds if found else 0)
                found.append((time.monotonic(), await connection.fetchval(query)))
        return found

    return asyncio.run(go())
