"""The faults."""

import asyncio
import json
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final
from uuid import UUID

import httpx

from common.failpoints import NAMES
from common.identifiers import lane_of, new_id
from faults.api_faults import API_FAULTS
from faults.clock_faults import CLOCK_FAULTS
from faults.cluster import Cluster
from faults.database_faults import DATABASE_FAULTS
from faults.field import Act, Fault, Field, session
from faults.silence_faults import SILENCE_FAULTS
from faults.topic_faults import CONSUMER_FAULTS, TOPIC_FAULTS
from support.processes import Process, http_client
from support.proxy import Proxy
from support.servers import Server
from walletctl.stack.readiness import HttpProbe

ZOMBIE_SECONDS: Final = 18.0
"""Longer than PostgreSQL lets a session idle in its transaction (15 s), and than the group waits (6 s)."""

_POISON_BYTES: Final = 2_000_000
_AT_WORK_SECONDS_MAX: Final = 10.0
_DEATHS: Final = 3
# Loads hardly reach some failpoints.
_DYING_SECONDS_MAX: Final = 10.0


async def _kill(on: Field, fault: Fault, role: str) -> None:
    process = on.cluster.first(role)
    await on.cluster.end(process, signal.SIGKILL)
    await asyncio.sleep(fault.seconds)
    on.cluster.start(process)


async def _die_somewhere(on: Field, fault: Fault) -> None:
    """Let a process die at one of all failpoints."""
    await _die_at(on, fault, random.Random(fault.choice).choice(list(NAMES)))


async def _die_at_commit(on: Field, fault: Fault) -> None:
    """Let the API die when all is written and nothing is committed: an answer that was sent before is a lie."""
    await _die_at(on, fault, "api.before_commit")


async def _die_at(on: Field, fault: Fault, failpoint: str) -> None:
    """Let a process die at the failpoint, again and again if it reaches it."""
    role = {"api": "wallet-api", "relay": "outbox-relay", "consumer": "history-consumer"}[failpoint.partition(".")[0]]
    process = on.cluster.first(role)
    # Until it is started again, only this fault supervises it.
    await on.cluster.end(process, signal.SIGKILL)
    for _ in range(_DEATHS):
        process.start(FAILPOINTS=f"{failpoint}=kill@{1 + fault.choice % 5}")
        with suppress(TimeoutError):
            async with asyncio.timeout(_DYING_SECONDS_MAX):
                while process.is_running:
                    await asyncio.sleep(0.1)
        if process.is_running:
            break
    await on.cluster.end(process, signal.SIGKILL)
    on.cluster.start(process)


async def _freeze(on: Field, fault: Fault, role: str) -> None:
    """A zombie: frozen for longer than every timeout while another process does its work, then resumed."""
    process = on.cluster.first(role)
    other = on.cluster.add(role)
    assert process.child is not None
    with suppress(ProcessLookupError):
        process.child.send_signal(signal.SIGSTOP)
    await asyncio.sleep(ZOMBIE_SECONDS)
    process.child.send_signal(signal.SIGCONT)
    await asyncio.sleep(1 + fault.seconds)
    await on.cluster.remove(other)


async def is_at_work(process: Process) -> bool:
    """Whether a consumer has a partition, or another process is ready."""
    if process.name != "history-consumer":
        return await HttpProbe(f"{process.url}/ready").ready()
    with suppress(httpx.HTTPError):
        async with http_client(process.url) as client:
            return "\nhistory_partitions_held 0.0" not in (await client.get("/metrics")).text
    return False


async def until_at_work(processes: Iterable[Process]) -> None:
    """Wait until these processes work, but not for long: another fault may keep them from it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_AT_WORK_SECONDS_MAX):
            for process in processes:
                while not await is_at_work(process):
                    await asyncio.sleep(0.1)


async def _storm(on: Field, fault: Fault, role: str) -> None:
    """More processes that come and go: each one makes the group rebalance."""
    rng = random.Random(fault.choice)
    for _ in range(2):
        guest = on.cluster.add(role)
        await until_at_work([guest])
        await asyncio.sleep(fault.seconds / 2)
        await on.cluster.end(guest, rng.choice([signal.SIGKILL, signal.SIGTERM]))
        on.cluster.processes.remove(guest)


def _of(act: Callable[[Field, Fault, str], Awaitable[None]], role: str) -> Act:
    return lambda on, fault: act(on, fault, role)


PROCESS_FAULTS: Final[dict[str, Act]] = {
    "kill wallet-api": _of(_kill, "wallet-api"),
    "kill outbox-relay": _of(_kill, "outbox-relay"),
    "kill history-consumer": _of(_kill, "history-consumer"),
    "kill history-api": _of(_kill, "history-api"),
    "die at a failpoint": _die_somewhere,
    "die at the commit": _die_at_commit,
    "freeze outbox-relay": _of(_freeze, "outbox-relay"),
    "freeze history-consumer": _of(_freeze, "history-consumer"),
    "storm of outbox-relay": _of(_storm, "outbox-relay"),
    "storm of history-consumer": _of(_storm, "history-consumer"),
    **CONSUMER_FAULTS,
    **CLOCK_FAULTS,
    **SILENCE_FAULTS,
}


async def _end_server(fault: Fault, server: Server, how: signal.Signals) -> None:
    await server.end(how)
    await asyncio.sleep(fault.seconds)
    server.start()
    await server.ready()


async def _pause_server(fault: Fault, server: Server) -> None:
    server.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(3 + fault.seconds)
    finally:
        server.send(signal.SIGCONT)


async def _end_backends(on: Field, fault: Fault) -> None:
    """End a random half of all sessions, four times."""
    rng = random.Random(fault.choice)
    for _ in range(4):
        async with session(on) as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name <> '' AND hashint8(pid + $1) % 2 = 0",
                rng.randrange(1000),
            )
        await asyncio.sleep(0.2 + fault.seconds / 4)


async def _crash_backend(on: Field, fault: Fault) -> None:
    """Kill one backend: PostgreSQL ends all other backends and recovers."""
    async with session(on) as connection:
        pids = [row["pid"] for row in await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name IN ('wallet-api', 'outbox-relay')"
        )]  # fmt: skip
    if pids:
        with suppress(ProcessLookupError):
            os.kill(random.Random(fault.choice).choice(pids), signal.SIGKILL)
    await asyncio.sleep(0.5)
    await on.cluster.postgres.ready()


async def _hold_locks(on: Field, fault: Fault) -> None:
    """A session that locks wallets, lanes and positions, as a forgotten psql does."""
    async with session(on) as connection:
        transaction = connection.transaction()
        await transaction.start()
        for table, share in (("wallet.wallets", 0.3), ("wallet.outbox_lanes", 0.3), ("history.processed_offsets", 0.5)):
            await connection.execute(f"SELECT FROM {table} WHERE random() < {share} FOR UPDATE SKIP LOCKED")
        await asyncio.sleep(1 + fault.seconds)
        await transaction.rollback()


async def _poison(on: Field, fault: Fault) -> None:
    """An event that the broker refuses, and later events of its wallet, in a lane shared with other wallets."""
    rng = random.Random(fault.choice)
    wallet = UUID(int=rng.getrandbits(128), version=4)
    async with session(on) as connection, connection.transaction():
        await connection.execute("SELECT pg_current_xact_id()")
        for size in (_POISON_BYTES, 10, 10):
            await connection.execute(
                "INSERT INTO wallet.outbox (event_id, aggregate_id, lane, event_type, payload, created_at)"
                " VALUES ($1, $2, $3, 'POISON', $4, now())",
                new_id(),
                wallet,
                lane_of(wallet),
                json.dumps({"filler": rng.randbytes(size // 2).hex()}),
            )
    on.poisoned.append(wallet)


async def _slow(fault: Fault, link: Proxy) -> None:
    link.delay_seconds = 0.02 + fault.choice % 100 / 1000
    await asyncio.sleep(2 + fault.seconds)
    link.heal()


async def _break(fault: Fault, link: Proxy) -> None:
    for _ in range(3):
        link.reset()
        await asyncio.sleep(fault.seconds / 3)


async def _cut(fault: Fault, link: Proxy) -> None:
    """Connections that break in the middle of a message."""
    link.reset()
    rng = random.Random(fault.choice)
    for _ in range(6):
        link.cut_after_bytes = rng.randrange(100, 60_000)
        await asyncio.sleep((1 + fault.seconds) / 6)
    link.heal()
    link.reset()


async def _silence(fault: Fault, link: Proxy) -> None:
    link.silence()
    await asyncio.sleep(2 + fault.seconds)
    link.heal()


async def _forget(fault: Fault, link: Proxy) -> None:
    """A firewall that lost its state: existing connections get no answer and are not closed."""
    link.silence()
    await asyncio.sleep(fault.seconds)
    link.heal(forget=True)


def _link_faults(name: str, link: Callable[[Cluster], Proxy]) -> dict[str, Act]:
    acts = {"slow": _slow, "break": _break, "cut": _cut, "silence": _silence, "forget": _forget}
    return {f"{what} {name}": _on_link(act, link) for what, act in acts.items()}


def _on_link(act: Callable[[Fault, Proxy], Awaitable[None]], link: Callable[[Cluster], Proxy]) -> Act:
    return lambda on, fault: act(fault, link(on.cluster))


SERVER_FAULTS: Final[dict[str, Act]] = {
    "shut postgres down at once": lambda on, fault: _end_server(fault, on.cluster.postgres, signal.SIGQUIT),
    "end backends": _end_backends,
    "crash a backend": _crash_backend,
    "hold locks": _hold_locks,
    "poison": _poison,
    "kill kafka": lambda on, fault: _end_server(fault, on.cluster.kafka, signal.SIGKILL),
    "stop kafka": lambda on, fault: _end_server(fault, on.cluster.kafka, signal.SIGTERM),
    "pause kafka": lambda on, fault: _pause_server(fault, on.cluster.kafka),
    **_link_faults("the link to postgres", lambda cluster: cluster.postgres_link),
    **_link_faults("the link to kafka", lambda cluster: cluster.kafka_link),
    **DATABASE_FAULTS,
    **TOPIC_FAULTS,
    **API_FAULTS,
}
