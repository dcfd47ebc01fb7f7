"""What the fault suite runs: PostgreSQL, Kafka, a network in front of each, and the four processes."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from common.kafka.clients import admin_client
from common.kafka.connection import KafkaConnection
from common.kafka.topics import ensure_topic
from common.postgres.grants import USUAL_NAMES
from common.tables.roles import Role
from support.api_keys import add_key
from support.databases import migrate_all
from support.processes import COMMANDS, Process
from support.proxy import HOST, Proxy
from support.roles import Roles
from support.servers import Server
from walletctl.stack.kafka import Kafka
from walletctl.stack.ports import PortReservations
from walletctl.stack.postgres import Postgres
from walletctl.stack.readiness import KafkaProbe, PostgresProbe
from walletctl.stack.specs import DATABASE_ROLES

TOPIC = "wallet_events"
GROUP = "wallet-history"
PARTITIONS = 4
ROLES = Roles(USUAL_NAMES, "first")
"""The roles of the processes, and their password."""
ENDING_SECONDS_MAX = 60
"""Longer than any process may take to end, by docs/deployment.md."""
_KEPT_EVERY_SECONDS = 0.5
_MEMORY_MAX = 500_000_000
_FILES_MAX = 300


@dataclass
class Cluster:
    """The servers and processes, their addresses, and what the supervisor noted of them."""

    directory: Path
    postgres: Server
    kafka: Server
    postgres_link: Proxy
    kafka_link: Proxy
    database_url: str
    """Of PostgreSQL itself, past the proxy, as the superuser."""
    environment: dict[str, str]
    """Its DATABASE_URL, behind the proxy, has no role."""
    ports: PortReservations
    """Keeps the ports of servers that are down from being used by clients."""
    processes: list[Process] = field(default_factory=list)
    down: set[int] = field(default_factory=set)
    """Processes (by id) that a fault has ended and will start again."""
    endings: list[str] = field(default_factory=list)
    overdue: list[str] = field(default_factory=list)
    """Processes that took longer to end than docs/deployment.md says."""
    """Processes that ended without being told to, and how."""
    memory_bytes_max: dict[str, int] = field(default_factory=dict)
    files_max: dict[str, int] = field(default_factory=dict)
    """Open files, sockets among them."""

    def environment_of(self, role: Role) -> dict[str, str]:
        """Return the environment of a process or a command that logs in as that role."""
        return {**self.environment, "DATABASE_URL": ROLES.url(self.environment["DATABASE_URL"], role)}

    def add(self, role: str, **environment: str) -> Process:
        """Start one more process; the supervisor keeps it running."""
        port = str(self.ports.choose([role + "-process"], {})[role + "-process"])
        ports = dict.fromkeys(("WALLET_API_PORT", "HISTORY_API_PORT", "RELAY_OPS_PORT", "CONSUMER_OPS_PORT"), port)
        log_file = self.directory / "logs" / f"{role}-{len(self.processes)}.log"
        own = {**self.environment_of(DATABASE_ROLES[role]), **ports, **environment}
        process = Process(role, own, log_file, f"http://{HOST}:{port}")
        self.processes.append(process)
        process.start()
        return process

    async def end(self, process: Process, how: signal.Signals) -> None:
        """End a process and leave it down."""
        self.down.add(id(process))
        assert process.child is not None
        process.child.send_signal(how)
        try:
            await asyncio.to_thread(process.child.wait, ENDING_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.overdue.append(f"{process.name} did not end within {ENDING_SECONDS_MAX} s of {how.name}")
            process.child.kill()
            await asyncio.to_thread(process.child.wait)

    def start(self, process: Process, **environment: str) -> None:
        """Start a process that was ended."""
        process.start(**environment)
        self.down.discard(id(process))

    async def remove(self, process: Process) -> None:
        """End a process for good, as on a deployment."""
        await self.end(process, signal.SIGTERM)
        self.processes.remove(process)

    def first(self, role: str) -> Process:
        """Return the first process of that role."""
        return next(process for process in self.processes if process.name == role)

    async def keep(self) -> None:
        """Supervise the processes until cancelled: start again those that ended, note memory and open files."""
        while True:
            for process in self.processes:
                child = process.child
                if child is None or id(process) in self.down:
                    continue
                if child.poll() is not None:
                    self.endings.append(f"{process.name} ended with {child.returncode}, see {process.log_file}")
                    process.start()
                    continue
                with suppress(psutil.NoSuchProcess):
                    seen = psutil.Process(child.pid)
                    _raise(self.memory_bytes_max, process.name, seen.memory_info().rss)
                    _raise(self.files_max, process.name, seen.num_fds())
            await asyncio.sleep(_KEPT_EVERY_SECONDS)

    def excesses(self) -> list[str]:
        """Return which processes used more memory or open files than allowed."""
        return [
            *(f"{name} used {used / 1e6:.0f} MB" for name, used in self.memory_bytes_max.items() if used > _MEMORY_MAX),
            *(f"{name} had {count} files open" for name, count in self.files_max.items() if count > _FILES_MAX),
        ]

    async def heal(self) -> None:
        """End every fault: start all servers and processes, let all links pass."""
        for link in (self.postgres_link, self.kafka_link):
            link.heal()
        for server in (self.postgres, self.kafka):
            with suppress(ProcessLookupError):
                server.send(signal.SIGCONT)
            await server.ready()
        for process in self.processes:
            assert process.child is not None
            if process.child.poll() is None:
                process.child.send_signal(signal.SIGCONT)
            elif id(process) in self.down:
                self.start(process)


def _raise(most: dict[str, int], name: str, value: int) -> None:
    most[name] = max(value, most.get(name, 0))


@asynccontextmanager
async def running_cluster(
    directory: Path,
    *,
    postgres_disk: Path | None = None,
    kafka_disk: Path | None = None,
    postgres_settings: Mapping[str, str] | None = None,
    **environment: str,
) -> AsyncIterator[Cluster]:
    """Run everything for the block. PostgreSQL uses fsync, so that commits survive a kill.

    Args:
        directory: for all files, but those of a server that has a disk of its own.
        postgres_disk: where PostgreSQL's data are.
        kafka_disk: where Kafka's data are.
        postgres_settings: on top of the stack's.
        environment: of the processes, on top of the suite's.
    """
    with closing(PortReservations()) as reservations:
        names = [f"port-{number}" for number in range(5)]
        ports = list(reservations.choose(names, {}).values())
        logs = directory / "logs"
        postgres = Postgres(
            (postgres_disk or directory) / "postgres", ports[0], logs / "postgres.log", postgres_settings or {}
        )
        kafka = Kafka((kafka_disk or directory) / "kafka", ports[1], ports[2], logs / "kafka.log", f"{HOST}:{ports[4]}")
        await asyncio.gather(asyncio.to_thread(postgres.prepare), asyncio.to_thread(kafka.prepare))
        async with Proxy(ports[3], ports[0]) as postgres_link, Proxy(ports[4], ports[1]) as kafka_link:
            database_url = f"postgresql://{HOST}:{ports[3]}/wallet"
            cluster = Cluster(
                directory,
                Server(postgres.launch, PostgresProbe(postgres.url), postgres.log_file),
                Server(kafka.launch, KafkaProbe(HOST, ports[1]), kafka.log_file),
                postgres_link,
                kafka_link,
                postgres.url,
                {
                    "DATABASE_URL": database_url,
                    "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                    "KAFKA_TOPIC": TOPIC,
                    "CONSUMER_GROUP": GROUP,
                    "KAFKA_TOPIC_PARTITIONS": str(PARTITIONS),
                    "CONSUMER_SESSION_TIMEOUT_SECONDS": "6",
                    # Small steps let the low water rise all the time; small batches make a backlog many transactions.
                    "RELAY_LOW_WATER_STEP": "1",
                    "CONSUMER_BATCH_RECORDS": "20",
                    # Fewer than the silent connections that a fault opens.
                    "CONNECTIONS_MAX": "120",
                    **environment,
                },
                reservations,
            )
            try:
                await _start(cluster, kafka)
                keeper = asyncio.create_task(cluster.keep())
                try:
                    yield cluster
                finally:
                    keeper.cancel()
                    await asyncio.gather(keeper, return_exceptions=True)
            finally:
                _kill_all(cluster)


async def _start(cluster: Cluster, kafka: Kafka) -> None:
    cluster.postgres.start()
    cluster.kafka.start()
    await asyncio.gather(cluster.postgres.ready(), cluster.kafka.ready())
    await ROLES.create(cluster.database_url)
    await migrate_all(cluster.database_url)
    await ROLES.grant(cluster.database_url)
    await add_key(cluster.database_url)
    await ensure_topic(admin_client(KafkaConnection(kafka.bootstrap_servers)), TOPIC, PARTITIONS, {})
    for role in COMMANDS:
        cluster.add(role)


def _kill_all(cluster: Cluster) -> None:
    for process in cluster.processes:
        if process.child is not None and process.child.poll() is None:
            process.child.kill()
            process.child.wait()
    for server, number in ((cluster.kafka, signal.SIGKILL), (cluster.postgres, signal.SIGQUIT)):
        if server.child is not None and server.child.poll() is None:
            server.child.send_signal(signal.SIGCONT)
            server.child.send_signal(number)
            server.child.wait(60)
