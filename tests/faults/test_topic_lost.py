"""Kafka loses records: an alarm names the remedy, and an operator applies it."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import TopicPartition

from common.kafka.clients import admin_client
from common.kafka.connection import KafkaConnection
from common.kafka.topics import ensure_topic
from common.tables.roles import Role
from faults.attack import attacked
from faults.cluster import PARTITIONS, TOPIC, running_cluster
from faults.field import Field, session
from support.processes import http_client

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

Eventually = Callable[..., Awaitable[Any]]
_WAY_OUT = "walletctl history rebuild"


async def recreate_topic(on: Field, eventually: Eventually) -> None:
    admin = admin_client(KafkaConnection(on.cluster.environment["KAFKA_BOOTSTRAP_SERVERS"]))
    await asyncio.wrap_future(admin.delete_topics([TOPIC])[TOPIC])
    await eventually(lambda: ensure_topic(admin, TOPIC, PARTITIONS, {}), 60)


async def delete_unread_records(on: Field, eventually: Eventually) -> None:
    consumer = on.cluster.first("history-consumer")
    await on.cluster.end(consumer, signal.SIGTERM)
    await published(on, eventually, 300)
    admin = admin_client(KafkaConnection(on.cluster.environment["KAFKA_BOOTSTRAP_SERVERS"]))
    # -1 is the end.
    ends = [TopicPartition(TOPIC, partition, -1) for partition in range(PARTITIONS)]
    await asyncio.gather(*map(asyncio.wrap_future, admin.delete_records(ends).values()))
    on.cluster.start(consumer)


async def truncate_topic(on: Field, eventually: Eventually) -> None:
    """As in a power failure: Kafka confirms records before they are on the disk."""
    kafka, log = on.cluster.kafka, on.cluster.directory / "kafka/log"
    on_disk = {file: file.stat().st_size for file in log.glob(f"{TOPIC}-*/*.log")}
    assert len(on_disk) == PARTITIONS
    await published(on, eventually, 300)
    await kafka.end(signal.SIGKILL)
    for file, size in on_disk.items():
        os.truncate(file, size)
    await kafka.ready()


async def put_disk_back(on: Field, eventually: Eventually) -> None:
    """The broker loses its leader epochs too; clients remember later ones and wait for them."""
    kafka, disk, copy = on.cluster.kafka, on.cluster.directory / "kafka", on.cluster.directory / "kafka-before"
    await kafka.end(signal.SIGKILL)
    await asyncio.to_thread(shutil.copytree, disk, copy)
    for _ in range(2):
        await kafka.ready()
        await applied(on, eventually, 100)
        await kafka.end(signal.SIGKILL)
    await asyncio.to_thread(shutil.rmtree, disk)
    copy.rename(disk)
    await kafka.ready()


async def published(on: Field, eventually: Eventually, more: int) -> None:
    """Wait until so many more rows are settled."""
    await moved(on, eventually, more, "SELECT count(*) FROM wallet.outbox WHERE published_at IS NOT NULL")


async def applied(on: Field, eventually: Eventually, more: int) -> None:
    """Wait until the history has read so many more records."""
    await moved(on, eventually, more, "SELECT coalesce(sum(next_offset), 0) FROM history.processed_offsets")


async def moved(on: Field, eventually: Eventually, more: int, statement: str) -> None:
    """Wait until the number that the statement finds has risen by so much."""

    async def count() -> int:
        async with session(on) as connection:
            return int(await connection.fetchval(statement))

    before = await count()

    async def enough() -> bool:
        return await count() >= before + more

    await eventually(enough, 120)


async def halts(on: Field) -> bool:
    """Whether the consumer reports that a partition is halted, and the remedy."""
    try:
        async with http_client(on.cluster.first("history-consumer").url) as client:
            reply = await client.get("/ready")
    except httpx.HTTPError:
        return False
    said = reply.json()["checks"]["kafka"]
    return reply.status_code == 503 and "halted" in said and _WAY_OUT in said


async def halts_or_misses(on: Field) -> bool:
    """Whether the consumer is halted, or reports missing versions: relays may have written before it looked."""
    if await halts(on):
        return True
    try:
        async with http_client(on.cluster.first("history-consumer").url) as client:
            metrics = (await client.get("/metrics")).text
    except httpx.HTTPError:
        return False
    return re.search(r"^history_old_gaps [1-9]", metrics, re.MULTILINE) is not None


async def walletctl(on: Field, *arguments: str) -> Any:
    """Run an operator's command; return its JSON."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "walletctl", *arguments, "--json"],
        env={**os.environ, **on.cluster.environment_of(Role.OPERATOR)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("lose", "alarm"),
    [
        (recreate_topic, halts),
        (delete_unread_records, halts),
        (truncate_topic, halts_or_misses),
        (put_disk_back, halts_or_misses),
    ],
)
async def test_lost_records_are_an_alarm_until_the_history_is_rebuilt_and_all_is_published_again(
    tmp_path: Path,
    seed: int,
    eventually: Eventually,
    lose: Callable[[Field, Eventually], Awaitable[None]],
    alarm: Callable[[Field], Awaitable[bool]],
) -> None:
    # No consumer loses its partitions while the broker is away: it continues with the same client.
    async with (
        running_cluster(tmp_path, CONSUMER_SESSION_TIMEOUT_SECONDS="60") as cluster,
        attacked(cluster, seed) as on,
    ):
        await published(on, eventually, 200)
        # A history that has read nothing would begin with the topic as it is then.
        await applied(on, eventually, 100)
        await lose(on, eventually)
        await eventually(lambda: alarm(on), 120)
        on.repaired = True
        print(await walletctl(on, "history", "rebuild", "--yes"))
        print(await walletctl(on, "outbox", "replay", "--all", "--yes", "--reason", "the topic lost records"))
