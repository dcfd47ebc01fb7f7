"""Measures whether the relay slows down while a session holds an old snapshot, under which vacuum removes nothing.

A REPEATABLE READ session stays open while events pass, in rounds: write a round's events, then time how long the relay
drains them. Prints the rate of each round, and the ratio of the last rounds to the first.

    .venv/bin/python -m benchmarks.relay_under_snapshot --events 1000000
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.place import PASSWORD
from common.kafka.clients import admin_client
from common.kafka.connection import KafkaConnection
from common.kafka.topics import ensure_topic
from common.postgres.engine import create_engine
from common.postgres.grants import USUAL_NAMES
from common.postgres.migrations import migrate
from common.postgres.privileges import apply_grants
from common.secrets import Secret
from common.tables.roles import Role
from common.worker import Health
from outbox_relay.adaptive_batching import AdaptiveBatching
from outbox_relay.publisher import Publisher
from outbox_relay.relay import Relay
from outbox_relay.settings import RelaySettings
from tools.servers import kafka_server, postgres_server

ROUNDS_COMPARED = 3
RATIO_MIN = 0.8
WALLETS = 10_000

WRITE = text("""
    INSERT INTO wallet.outbox (event_id, aggregate_id, lane, event_type, payload, created_at)
    SELECT gen_random_uuid(), wallet, get_byte(uuid_send(wallet), 15) % 64, 'BENCHMARK',
        json_build_object('amount', '1.00', 'filler', repeat('x', 400)), now()
    FROM generate_series(1, :rows) AS number
    CROSS JOIN LATERAL (SELECT md5((number % :wallets)::text)::uuid AS wallet) AS made
""")


async def drain(relays: list[Relay]) -> int:
    """Run the relays concurrently until no row is pending; return how many rows left the queue."""

    async def one(relay: Relay) -> int:
        total = 0
        while done := await relay.run_once():
            total += done
        return total

    return sum(await asyncio.gather(*map(one, relays)))


async def rates(engine: AsyncEngine, relays: list[Relay], events: int, round_rows: int) -> list[float]:
    """Return the relay's rate in each round, in events a second, while a session holds an old snapshot."""
    found = []
    async with engine.connect() as reader:
        await reader.execution_options(isolation_level="REPEATABLE READ")
        await reader.execute(text("SELECT count(*) FROM wallet.outbox"))
        for number in range(events // round_rows):
            async with engine.begin() as connection:
                await connection.execute(WRITE, {"rows": round_rows, "wallets": WALLETS})
            started = time.perf_counter()
            drained = 0
            while drained < round_rows:
                drained += await drain(relays)
            found.append(round_rows / (time.perf_counter() - started))
            print(f"{(number + 1) * round_rows:>10,} events passed: {found[-1]:>8,.0f} a second", flush=True)
    return found


async def run(url: str, servers: str, events: int, round_rows: int) -> float:
    """Return the rate at the end over the rate at the start."""
    engine = create_engine(url, "benchmark", statement_timeout_seconds=0, idle_in_transaction_timeout_seconds=0)
    await migrate(engine, "wallet")
    await apply_grants(engine, USUAL_NAMES)
    async with engine.begin() as connection:
        await connection.execute(text(f"ALTER ROLE {Role.RELAY} LOGIN PASSWORD '{PASSWORD}'"))
    as_relay = make_url(url).set(username=Role.RELAY, password=PASSWORD).render_as_string(hide_password=False)
    settings = RelaySettings(database_url=Secret(as_relay), kafka_bootstrap_servers=servers)
    relay_engine = create_engine(as_relay, "benchmark")
    await ensure_topic(
        admin_client(KafkaConnection(servers)), settings.kafka_topic, settings.kafka_topic_partitions, {}
    )
    batching = AdaptiveBatching(settings.relay_gather_seconds, settings.relay_batch_rows)
    relays = [
        Relay(settings, relay_engine, Publisher(settings), Health(), batching) for _ in range(settings.relay_tasks)
    ]
    # The first round warms up: a producer's first record waits for its producer id.
    found = (await rates(engine, relays, events + round_rows, round_rows))[1:]
    await relay_engine.dispose()
    await engine.dispose()
    first, last = median(found[:ROUNDS_COMPARED]), median(found[-ROUNDS_COMPARED:])
    print(f"first {first:,.0f} a second, last {last:,.0f} a second, ratio {last / first:.2f} (at least {RATIO_MIN})")
    return last / first


def main() -> int:
    """Run the benchmark on temporary servers; return 1 if the ratio is too low."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--round-rows", type=int, default=50_000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        postgres_server(Path(directory)) as url,
        kafka_server(Path(directory)) as servers,
    ):
        return int(asyncio.run(run(url, servers, options.events, options.round_rows)) < RATIO_MIN)


if __name__ == "__main__":
    sys.exit(main())
