"""What must hold during the faults and after them."""

import asyncio
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final, Literal
from uuid import UUID

import asyncpg
from confluent_kafka import ConsumerGroupTopicPartitions, Message

from common.kafka.clients import admin_client
from common.kafka.connection import KafkaConnection
from common.settings import PipelineSettings
from faults import records
from faults.answer_checkers import check_operations, check_reversals
from faults.cluster import GROUP, TOPIC, Cluster
from faults.field import Field, session
from faults.requests import OVERDRAFT_MAX_MINOR
from history_consumer.consumer.records import headers_of
from support.processes import Process
from walletctl.stack.readiness import HttpProbe
from walletctl.verify.audit import TOPIC as OUTBOX_AND_TOPIC
from walletctl.verify.audit import audit

Place = tuple[int, int]
"""Partition and offset."""

DRAIN_SECONDS_MAX: Final = 60.0
READY_SECONDS_MAX: Final = 30.0
SESSIONS_MAX: Final = 80

KINDS: Final[tuple[Literal["fund", "withdraw"], ...]] = ("fund", "withdraw")
KNOWN: Final = frozenset({"ok"})
POSSIBLE: Final = frozenset({"ok", "unknown", "wrong"})

_BANK = """
    SELECT (SELECT sum(balance_minor) FROM wallet.wallets)::bigint AS balances,
        (SELECT min(balance_minor) FROM wallet.wallets) AS lowest,
        (SELECT -sum(amount_minor) FROM wallet.wallet_transactions WHERE wallet_id IS NULL)::bigint AS came_in,
        (SELECT sum(amount_minor) FROM wallet.wallet_transactions WHERE wallet_id IS NOT NULL)::bigint AS entries,
        (SELECT count(*) FROM pg_stat_activity WHERE application_name <> '') AS sessions,
        (SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()) AS deadlocks
"""
"""One statement, so one snapshot."""

_POSITIONS = "SELECT partition, topic_id, next_offset FROM history.processed_offsets"

# Holds that are about to expire make events while the checks run.
_BACKLOG = """
    SELECT (SELECT count(*) FROM wallet.holds WHERE status = 'open' AND expires_at < now() + interval '1 min')
            AS expiring,
        (SELECT count(*) FROM wallet.outbox WHERE published_at IS NULL AND parked_at IS NULL) AS pending,
        (SELECT sum(version) FROM wallet.wallets)::bigint AS versions,
        (SELECT coalesce(sum(event_count), 0) FROM history.wallet_progress)::bigint AS in_history
"""


async def monitor(on: Field, stop: asyncio.Event) -> int:
    """Read the balances and the positions repeatedly during the faults; return how often."""
    reads, driver, positions = 0, on.driver, dict[tuple[int, str], int]()
    while not stop.is_set():
        funded, withdrawn = (driver.moved_minor(kind, KNOWN) for kind in KINDS)
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(5):
                connection = await asyncpg.connect(on.cluster.database_url)
                try:
                    row = await connection.fetchrow(_BANK)
                    found = await connection.fetch(_POSITIONS)
                finally:
                    connection.terminate()
            # What was asked for meanwhile may be done, or not.
            funded_at_most, withdrawn_at_most = (driver.moved_minor(kind, POSSIBLE) for kind in KINDS)
            driver.violations += balance_violations(row, funded - withdrawn_at_most, funded_at_most - withdrawn)
            before, positions = positions, {(row["partition"], row["topic_id"]): row["next_offset"] for row in found}
            driver.violations += [] if on.repaired else fallen(before, positions)
            reads += 1
        await asyncio.sleep(0.3)
    return reads


def fallen(before: dict[tuple[int, str], int], now: dict[tuple[int, str], int]) -> list[str]:
    """Return which positions are lower than before, by partition and topic id, or missing."""
    return [
        f"position of partition {key[0]} of topic {key[1]}: {now.get(key)} after {position}"
        for key, position in before.items()
        if now.get(key, -1) < position
    ]


def balance_violations(row: Any, at_least: int, at_most: int) -> list[str]:
    """Return what is wrong with the balances, given the sums that clients know of and that they asked for."""
    found = []
    if not row["balances"] == row["came_in"] == row["entries"]:
        found.append(f"balances: sum {row['balances']}, came in {row['came_in']}, entries {row['entries']}")
    if not at_least <= row["balances"] <= at_most:
        found.append(f"balances: {row['balances']} is not between {at_least} known and {at_most} asked for")
    if row["lowest"] < -OVERDRAFT_MAX_MINOR:
        found.append(f"balances: a wallet has {row['lowest']}")
    if row["deadlocks"]:
        found.append(f"{row['deadlocks']} deadlocks")
    if row["sessions"] > SESSIONS_MAX:
        found.append(f"{row['sessions']} database sessions")
    return found


async def wait_until_drained(on: Field) -> list[str]:
    """Wait until the history has every event; note how many seconds it took, or return what is left."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with session(on) as connection:
        while True:
            row = await connection.fetchrow(_BACKLOG)
            on.drained_seconds = loop.time() - start
            if row["pending"] == row["expiring"] == 0 and row["versions"] == row["in_history"]:
                return []
            if on.drained_seconds > DRAIN_SECONDS_MAX:
                return [f"the backlog did not drain within {DRAIN_SECONDS_MAX:.0f} s: {row}"]
            await asyncio.sleep(0.1)


async def wait_until_ready(on: Field) -> list[str]:
    """Wait until every process is ready; return which one is not, and why."""
    return [line for line in await asyncio.gather(*map(_becomes_ready, on.cluster.processes)) if line]


async def _becomes_ready(process: Process) -> str:
    deadline = asyncio.get_running_loop().time() + READY_SECONDS_MAX
    probe = HttpProbe(f"{process.url}/ready")
    while (problem := await probe.problem()) is not None:
        if asyncio.get_running_loop().time() > deadline:
            return f"{process.name} was not ready {READY_SECONDS_MAX:.0f} s after everything had drained: {problem}"
        await asyncio.sleep(0.1)
    return ""


async def check(on: Field) -> list[str]:
    """Return every difference after the faults. Deletes poisoned rows and dead letters, so that the audit is clean."""
    cluster, driver = on.cluster, on.driver
    messages = await asyncio.to_thread(records.read, cluster)
    async with session(on) as connection:
        rows = await connection.fetch(
            "SELECT id, event_id::text, aggregate_id::text FROM wallet.outbox WHERE event_type <> 'POISON' ORDER BY id"
        )
        foreign = {_place(message): reason for message in messages if (reason := _reason(message))}
        found = [
            *driver.violations,
            *cluster.excesses(),
            *await check_operations(connection, driver),
            *await check_reversals(connection, driver),
            *await _check_poison(connection, on),
            *await _check_versions(connection),
            *await _check_dead_letters(connection, foreign),
            *await _check_sessions(connection),
            *await _check_committed(connection, cluster),
            *_check_topic(on, [message for message in messages if _place(message) not in foreign], rows),
        ]
    return found + await _differences(cluster, foreign)


async def _differences(cluster: Cluster, foreign: Collection[Place]) -> list[str]:
    """Return the differences that the audit finds, except the foreign records, which it must find."""
    report = await audit(
        PipelineSettings(
            database_url=cluster.database_url,
            kafka_bootstrap_servers=cluster.environment["KAFKA_BOOTSTRAP_SERVERS"],
            kafka_topic=TOPIC,
            consumer_group=GROUP,
        )
    )
    expected = [f"{OUTBOX_AND_TOPIC}: partition {partition} offset {offset}: record:" for partition, offset in foreign]
    lines = [line for result in report.checks for line in result.lines]
    return [f"audit: {line}" for line in lines if not line.startswith(tuple(expected))]


async def _check_poison(connection: asyncpg.Connection, on: Field) -> list[str]:
    """All rows of the poisoned wallets are parked, and no other rows. Deletes them, so that the audit is clean."""
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


async def _check_dead_letters(connection: asyncpg.Connection, foreign: dict[Place, str]) -> list[str]:
    """Each foreign record is a dead letter for its reason, and no other record is. Deletes the dead letters."""
    rows = await connection.fetch('DELETE FROM history.dead_letters RETURNING partition, "offset", reason')
    dead_letters = {(row["partition"], row["offset"]): row["reason"] for row in rows}
    return [
        f"record {place} is a dead letter for {dead_letters.get(place)}, expected for {foreign.get(place)}"
        for place in dead_letters.keys() | foreign.keys()
        if dead_letters.get(place) != foreign.get(place)
    ]


async def _check_sessions(connection: asyncpg.Connection) -> list[str]:
    """No session has left a transaction open."""
    rows = await connection.fetch("""
        SELECT application_name, state, query FROM pg_stat_activity
        WHERE application_name <> '' AND state <> 'active' AND xact_start < now() - interval '5 s'
    """)
    return [f"{row['application_name']} is {row['state']} after {row['query']}" for row in rows]


async def _check_committed(connection: asyncpg.Connection, cluster: Cluster) -> list[str]:
    """The group's offsets in Kafka are never ahead of the history's positions."""
    admin = admin_client(KafkaConnection(cluster.environment["KAFKA_BOOTSTRAP_SERVERS"]))
    (future,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)]).values()
    committed = (await asyncio.wrap_future(future)).topic_partitions
    stored = {row["partition"]: row["next_offset"] for row in await connection.fetch(_POSITIONS)}
    return [
        f"Kafka has offset {part.offset} of partition {part.partition}, the history {stored.get(part.partition)}"
        for part in committed
        if part.offset > stored.get(part.partition, 0)
    ]


def _check_topic(on: Field, messages: list[Message], rows: list[Any]) -> list[str]:
    """The topic has every outbox row, nothing else, and the first record of each event in the wallet's order.

    Only events that an operator replayed may follow later ones.
    """
    known = {row["event_id"]: row for row in rows}
    seen = {_event_id(message) for message in messages}
    found = [f"outbox row {row['id']} is not in the topic" for event, row in known.items() if event not in seen]
    last: dict[str, int] = defaultdict(int)
    for event_id in dict.fromkeys(_event_id(message) for message in messages if _reason(message) is None):
        row = known.get(event_id)
        if row is None:
            found.append(f"event {event_id} is in the topic and not in the outbox")
            continue
        if row["id"] < last[row["aggregate_id"]] and not on.repaired:
            found.append(f"wallet {row['aggregate_id']}: outbox row {row['id']} comes behind a later one")
        last[row["aggregate_id"]] = row["id"]
    return found


def _place(message: Message) -> Place:
    return message.partition() or 0, message.offset() or 0


def _reason(message: Message) -> str | None:
    """Return the reason for a dead letter: empty for an event delivered again, None for a relay's own record."""
    found = dict(headers_of(message)).get(records.INJECTED)
    return None if found is None else bytes(found).decode()


def _event_id(message: Message) -> str:
    return (dict(headers_of(message)).get("ce_id") or b"").decode()
