"""What must be true during the faults and after them."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

import asyncpg
from confluent_kafka import Consumer, TopicPartition

from common.kafka import client_config
from faults.cluster import GROUP, TOPIC, Cluster
from faults.driver import Driver
from faults.nemesis import Field
from history_consumer.records import headers_of
from walletctl.verify.audit import audit
from walletctl.verify.settings import VerifySettings

DRAIN_SECONDS_MAX: Final = 60.0
MEMORY_BYTES_MAX: Final = 500_000_000
SESSIONS_MAX: Final = 80

_BANK = """
    SELECT (SELECT sum(balance_minor) FROM wallet.wallets)::bigint AS balances,
        (SELECT min(balance_minor) FROM wallet.wallets) AS lowest,
        (SELECT -sum(amount_minor) FROM wallet.wallet_transactions WHERE wallet_id IS NULL)::bigint AS came_in,
        (SELECT sum(amount_minor) FROM wallet.wallet_transactions WHERE wallet_id IS NOT NULL)::bigint AS entries,
        (SELECT count(*) FROM pg_stat_activity WHERE application_name <> '') AS sessions
"""
"""One statement, so one snapshot: what a reader can see at this moment."""

_BACKLOG = """
    SELECT (SELECT count(*) FROM wallet.outbox WHERE published_at IS NULL AND parked_at IS NULL) AS pending,
        (SELECT sum(version) FROM wallet.wallets)::bigint AS versions,
        (SELECT coalesce(sum(event_count), 0) FROM history.wallet_progress)::bigint AS in_history
"""


async def watch_bank(cluster: Cluster, driver: Driver, stop: asyncio.Event) -> int:
    """Read the bank's total again and again while everything breaks; return how often it was read."""
    reads = 0
    while not stop.is_set():
        at_least = driver.funded_at_least
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(5):
                connection = await asyncpg.connect(cluster.database_url)
                try:
                    row = await connection.fetchrow(_BANK)
                finally:
                    connection.terminate()
            driver.violations += bank_violations(row, at_least, driver.funded_at_most)
            reads += 1
        await asyncio.sleep(0.3)
    return reads


def bank_violations(row: Any, at_least: int, at_most: int) -> list[str]:
    """Say what is wrong with the bank at one moment, given what clients know and what they only asked for."""
    found = []
    if not row["balances"] == row["came_in"] == row["entries"]:
        found.append(f"bank: balances {row['balances']}, came in {row['came_in']}, entries {row['entries']}")
    if not at_least <= row["balances"] <= at_most:
        found.append(f"bank: {row['balances']} is not between {at_least} known and {at_most} asked for")
    if row["lowest"] < 0:
        found.append(f"bank: a wallet has {row['lowest']}")
    if row["sessions"] > SESSIONS_MAX:
        found.append(f"{row['sessions']} database sessions")
    return found


async def wait_until_drained(cluster: Cluster) -> float:
    """Wait until everything that happened is in the history; return how many seconds it took.

    Raises:
        TimeoutError: it took longer than 60 s.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    connection = await asyncpg.connect(cluster.database_url)
    row = None
    try:
        async with asyncio.timeout(DRAIN_SECONDS_MAX):
            while True:
                row = await connection.fetchrow(_BACKLOG)
                if row["pending"] == 0 and row["versions"] == row["in_history"]:
                    return loop.time() - start
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise TimeoutError(f"the backlog did not drain within {DRAIN_SECONDS_MAX:.0f} s: {row}") from error
    finally:
        await connection.close()


async def check(on: Field, driver: Driver) -> list[str]:
    """Return everything that is wrong after the faults; changes nothing but the poison, which it takes away."""
    cluster = on.cluster
    connection = await asyncpg.connect(cluster.database_url)
    try:
        found = [
            *driver.violations,
            *await _check_operations(connection, driver),
            *await _check_poison(connection, on),
            *await _check_versions(connection),
            *_check_topic(
                await asyncio.to_thread(_read_topic, cluster),
                await connection.fetch("SELECT id, event_id::text, aggregate_id::text FROM wallet.outbox ORDER BY id"),
            ),
        ]
    finally:
        await connection.close()
    found += [
        f"{name} used {used / 1e6:.0f} MB" for name, used in cluster.memory_bytes_max.items() if used > MEMORY_BYTES_MAX
    ]
    report = await audit(
        VerifySettings(
            database_url=cluster.database_url,
            kafka_bootstrap_servers=cluster.environment["KAFKA_BOOTSTRAP_SERVERS"],
            kafka_topic=TOPIC,
            consumer_group=GROUP,
        )
    )
    return found + [f"audit: {line}" for line in report.differences]


async def _check_operations(connection: asyncpg.Connection, driver: Driver) -> list[str]:
    """Compare what clients were told with what is there: one effect for each ok, none for each refusal."""
    moved = {row["reference"]: row for row in await connection.fetch(
        "SELECT reference, count(DISTINCT transaction_id) AS times, min(transaction_id::text) AS id"
        " FROM wallet.wallet_transactions WHERE reference IS NOT NULL GROUP BY reference"
    )}  # fmt: skip
    made = {row["external_id"]: row["id"] for row in await connection.fetch(
        "SELECT external_id, id::text FROM wallet.wallets WHERE external_id IS NOT NULL"
    )}  # fmt: skip
    found = []
    for operation in driver.operations:
        where = f"{operation.path} {operation.key} {operation.attempts}"
        is_there = operation.key in (made if operation.kind == "create" else moved)
        if operation.outcome == "unknown":
            found.append(f"{where}: still unknown")
        elif is_there != (operation.outcome == "ok"):
            found.append(f"{where}: {operation.outcome}, and {'it is' if is_there else 'nothing is'} there")
        elif operation.kind == "create":
            continue
        elif is_there and moved[operation.key]["times"] != 1:
            found.append(f"{where}: has {moved[operation.key]['times']} effects")
        elif is_there and moved[operation.key]["id"].encode() not in operation.reply:
            found.append(f"{where}: was told of another transaction than {moved[operation.key]['id']}")
    strangers = (moved.keys() | made.keys()) - {operation.key for operation in driver.operations}
    return found + [f"nobody asked for {key}" for key in strangers]


async def _check_poison(connection: asyncpg.Connection, on: Field) -> list[str]:
    """The poisoned wallets are parked, whole, and no other is; then take them away, so that the audit is clean."""
    parked = await connection.fetch(
        "DELETE FROM wallet.outbox WHERE parked_at IS NOT NULL OR event_type = 'POISON'"
        " RETURNING aggregate_id, parked_at"
    )
    counts: dict[UUID, int] = defaultdict(int)
    for row in parked:
        counts[UUID(str(row["aggregate_id"]))] += row["parked_at"] is not None
    return [
        f"wallet {wallet}: {counts[wallet]} rows are parked, of {3 * (wallet in on.poisoned)}"
        for wallet in counts.keys() | set(on.poisoned)
        if counts[wallet] != 3 * (wallet in on.poisoned)
    ]


async def _check_versions(connection: asyncpg.Connection) -> list[str]:
    """Every wallet's versions are 1..n, each once, in the history as in the wallets."""
    rows = await connection.fetch("""
        SELECT wallets.id, wallets.version, count(events.wallet_version) AS rows,
            count(DISTINCT events.wallet_version) AS versions, max(events.wallet_version) AS highest
        FROM wallet.wallets LEFT JOIN history.transaction_events AS events ON events.wallet_id = wallets.id
        GROUP BY wallets.id, wallets.version
    """)
    return [
        f"wallet {row['id']}: version {row['version']}, {row['versions']} versions in {row['rows']} history rows"
        for row in rows
        if not row["version"] == row["rows"] == row["versions"] == row["highest"]
    ]


def _read_topic(cluster: Cluster) -> list[str]:
    """Return the event ids of the topic, partition after partition, in the order of offsets."""
    consumer = Consumer(
        client_config(
            cluster.environment["KAFKA_BOOTSTRAP_SERVERS"],
            "fault-checker",
            **{"group.id": "fault-checker", "enable.auto.commit": False, "auto.offset.reset": "earliest"},
        )
    )
    event_ids = []
    try:
        for partition in consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions:
            _, end = consumer.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=10)
            consumer.assign([TopicPartition(TOPIC, partition, 0)])
            offset = 0
            while offset < end:
                for message in consumer.consume(2000, timeout=10):
                    assert message.error() is None, message.error()
                    offset = (message.offset() or 0) + 1
                    event_ids.append(dict(headers_of(message))["ce_id"].decode())
    finally:
        consumer.close()
    return event_ids


def _check_topic(event_ids: list[str], rows: list[Any]) -> list[str]:
    """Every outbox row is in the topic, nothing else is, and first occurrences are in order for each wallet."""
    known, seen = {row["event_id"]: row for row in rows}, set(event_ids)
    found = [f"outbox row {row['id']} is not in the topic" for event, row in known.items() if event not in seen]
    last: dict[str, int] = defaultdict(int)
    for event_id in dict.fromkeys(event_ids):
        row = known.get(event_id)
        if row is None:
            found.append(f"event {event_id} is in the topic and not in the outbox")
            continue
        if row["id"] < last[row["aggregate_id"]]:
            found.append(f"wallet {row['aggregate_id']}: outbox row {row['id']} comes behind a later one")
        last[row["aggregate_id"]] = row["id"]
    return found
