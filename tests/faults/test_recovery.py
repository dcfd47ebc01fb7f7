"""Single faults after which a process once did not recover by itself."""

import asyncio
import signal
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from faults.attack import attacked
from faults.checkers import wait_until_drained
from faults.cluster import Cluster, running_cluster
from faults.driver import Driver
from faults.field import Field
from support.processes import http_client
from support.proxy import HOST

_RECOVERED_SECONDS_MAX = 25.0


@pytest.mark.parametrize(
    ("protocol", "api_key"),
    # The first heartbeat under `consumer` waits for 45 s, which no setting changes: too long for every day.
    [("classic", 11), pytest.param("consumer", 68, marks=pytest.mark.faults)],
)
@pytest.mark.timeout(240)
async def test_all_go_on_after_a_firewall_forgot_the_database_connections_and_the_one_a_consumer_was_joining_on(
    tmp_path: Path, eventually: Callable[..., Awaitable[Any]], protocol: str, api_key: int
) -> None:
    """Both faults at once, because each takes a quarter of a minute."""
    async with running_cluster(tmp_path) as cluster:
        await _forget_the_join(cluster, protocol, api_key)
        async with attacked(cluster, 1) as on:
            await _forget_the_database(on, eventually)


async def _forget_the_join(cluster: Cluster, protocol: str, api_key: int) -> None:
    """Start the consumer anew, and forget the connection on which it asks to join its group."""
    consumer = cluster.first("history-consumer")
    await cluster.end(consumer, signal.SIGKILL)
    # A request is its length in four bytes, then its API key in two: JoinGroup, ConsumerGroupHeartbeat.
    cluster.kafka_link.forget_at = lambda piece: piece[4:6] == api_key.to_bytes(2)
    cluster.start(consumer, CONSUMER_GROUP_PROTOCOL=protocol, CONSUMER_TRANSACTION_TIMEOUT_SECONDS="1")
    async with asyncio.timeout(60):
        while cluster.kafka_link.forget_at is not None:
            await asyncio.sleep(0.05)


async def _forget_the_database(on: Field, eventually: Callable[..., Awaitable[Any]]) -> None:
    """Forget all connections to the database, and wait until the API answers as before."""
    answers, link = on.driver.answers, on.cluster.postgres_link

    async def busy() -> bool:
        return answers["200"] > 100

    async def recovered() -> bool:
        """Whether for a second clients get 200, and none gets 503."""
        before = answers.copy()
        await asyncio.sleep(1)
        return answers["503"] == before["503"] and answers["200"] > before["200"]

    await eventually(busy)
    link.silence()
    await asyncio.sleep(1)
    link.heal(forget=True)
    await eventually(recovered, _RECOVERED_SECONDS_MAX)


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_relay_and_consumer_go_on_after_their_broker_told_them_that_there_is_no_broker(
    tmp_path: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    async with running_cluster(tmp_path) as cluster:
        consumer = cluster.first("history-consumer")

        async def consumer_misses_it() -> bool:
            async with http_client(consumer.url) as client:
                return bool((await client.get("/ready")).json()["checks"]["kafka"] != "ok")

        await _make_traffic(cluster, 1)
        await _drained(cluster)
        await _unregister_broker(cluster.kafka_link.target_port)
        # Clients that connect ask for the brokers.
        cluster.kafka_link.reset()
        await eventually(consumer_misses_it, 40)
        await cluster.kafka.end(signal.SIGKILL)
        await cluster.kafka.ready()
        await _make_traffic(cluster, 2)
        await _drained(cluster)


async def _drained(cluster: Cluster) -> None:
    assert not await wait_until_drained(Field(cluster, Driver(cluster.first("wallet-api").url, seed=0)))


async def _make_traffic(cluster: Cluster, seed: int) -> None:
    """Make wallets and fund them."""
    async with asyncio.timeout(60):
        await Driver(cluster.first("wallet-api").url, seed=seed).prepare()


async def _unregister_broker(port: int) -> None:
    """Remove the only broker from its cluster's metadata. It runs on, and registers at its next start."""
    api_key, version, correlation_id, broker_id = 64, 0, 1, 1
    request = struct.pack(">hhihxix", api_key, version, correlation_id, 0, broker_id)
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(struct.pack(">i", len(request)) + request)
    reply = await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
    writer.close()
    # Correlation id, no tags, throttle time, error code.
    assert struct.unpack_from(">ixih", reply) == (correlation_id, 0, 0), reply
