"""Kafka loses what it had: the consumers stop with an alarm that names the way out, and an operator takes it."""

import asyncio
import json
import os
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

from common.kafka import admin_client, ensure_topic
from faults.attack import attacked
from faults.cluster import PARTITIONS, TOPIC, running_cluster
from faults.field import Field, session

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

Eventually = Callable[..., Awaitable[Any]]
_WAY_OUT = "walletctl history rebuild"


async def recreate_topic(on: Field, eventually: Eventually) -> None:
    admin = admin_client(on.cluster.environment["KAFKA_BOOTSTRAP_SERVERS"])
    await asyncio.wrap_future(admin.delete_topics([TOPIC])[TOPIC])
    await eventually(lambda: ensure_topic(admin, TOPIC, PARTITIONS, {}), 60)


async def delete_unread_records(on: Field, eventually: Eventually) -> None:
    consumer = on.cluster.first("history-consumer")
    await on.cluster.end(consumer, signal.SIGTERM)
    await published(on, eventually, 300)
    admin = admin_client(on.cluster.environment["KAFKA_BOOTSTRAP_SERVERS"])
    # -1 is the end.
    ends = [TopicPartition(TOPIC, partition, -1) for partition in range(PARTITIONS)]
    await asyncio.gather(*map(asyncio.wrap_future, admin.delete_records(ends).values()))
    on.cluster.start(consumer)


async def restore_broker_to_an_earlier_time(on: Field, eventually: Eventually) -> None:
    kafka, log = on.cluster.kafka, on.cluster.directory / "kafka/log"
    await kafka.end(signal.SIGTERM)
    shutil.copytree(log, log.with_name("backup"))
    await kafka.ready()
    await published(on, eventually, 300)
    await kafka.end(signal.SIGTERM)
    shutil.rmtree(log)
    log.with_name("backup").rename(log)
    await kafka.ready()


async def published(on: Field, eventually: Eventually, more: int) -> None:
    """Wait until so many more rows are settled."""

    async def count() -> int:
        async with session(on) as connection:
            return int(await connection.fetchval("SELECT count(*) FROM wallet.outbox WHERE published_at IS NOT NULL"))

    before = await count()

    async def enough() -> bool:
        return await count() >= before + more

    await eventually(enough, 120)


async def halts(on: Field) -> bool:
    """Whether the consumer says that it stands still, and the way out."""
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            reply = await client.get(f"{on.cluster.first('history-consumer').url}/ready")
    except httpx.HTTPError:
        return False
    said = reply.json()["checks"]["kafka"]
    return reply.status_code == 503 and "halted" in said and _WAY_OUT in said


async def walletctl(on: Field, *arguments: str) -> Any:
    """Do what an operator types; return its JSON."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "walletctl", *arguments, "--json"],
        env={**os.environ, **on.cluster.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return json.loads(done.stdout)


@pytest.mark.parametrize("lose", [recreate_topic, delete_unread_records, restore_broker_to_an_earlier_time])
async def test_when_records_are_lost_consumers_halt_until_the_history_is_rebuilt_and_all_is_published_again(
    tmp_path: Path, seed: int, eventually: Eventually, lose: Callable[[Field, Eventually], Awaitable[None]]
) -> None:
    async with running_cluster(tmp_path) as cluster, attacked(cluster, seed) as on:
        await published(on, eventually, 200)
        await lose(on, eventually)
        await eventually(lambda: halts(on), 90)
        on.repaired = True
        print(await walletctl(on, "history", "rebuild", "--yes"))
        print(await walletctl(on, "outbox", "replay", "--all", "--yes", "--reason", "the topic lost records"))
