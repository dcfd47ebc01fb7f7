"""The servers of a run. Each measurement has its own place on them: a database and a topic."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url

from benchmarks import queries
from benchmarks.place import PARTITIONS, PASSWORD, Place
from benchmarks.plan import BALANCE_MINOR
from common.kafka.clients import admin_client
from common.kafka.connection import KafkaConnection
from common.kafka.topics import ensure_topic
from common.tables.roles import Role
from tools.servers import kafka_server, postgres_server, running
from walletctl.stack.launch import launch
from walletctl.stack.ports import HOST, PortReservations
from walletctl.stack.readiness import HttpProbe, Probe
from walletctl.stack.specs import walletctl

ROOT: Final = Path(__file__).resolve().parents[1]

# The first three keep commits durable; with the other settings the benchmark measures without disturbing.
POSTGRES_SETTINGS: Final = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "track_commit_timestamp": "on",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "none",
}
# The broker's own timestamps tell when an event was in Kafka.
TOPIC_CONFIG: Final = {"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}

COMMANDS: Final = {
    "api": (Role.API, "api", "serve"),
    "relay": (Role.RELAY, "relay", "run"),
    "consumer": (Role.CONSUMER, "consumer", "run"),
}
_PORTS: Final = ("WALLET_API_PORT", "HISTORY_API_PORT", "RELAY_OPS_PORT", "CONSUMER_OPS_PORT")


@dataclass(frozen=True)
class Service:
    """A process under test, by its pid and its address."""

    pid: int
    url: str


@dataclass
class Lab:
    """The servers of one run.

    Attributes:
        directory: the directory of data and logs.
        postgres_url: the URL of the maintenance database.
        kafka_servers: `bootstrap.servers`.
        api_processes: the number of processes of our API, and of the peer's.
    """

    directory: Path
    postgres_url: str
    kafka_servers: str
    api_processes: int
    ports: PortReservations
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _templates: dict[tuple[int, int], str] = field(default_factory=dict)

    def template(self, wallets: int, rounds: int = 0) -> str:
        """Return the name of a database with so many wallets, each with so many transfers, all pending."""
        key = (wallets, rounds)
        if key not in self._templates:
            self._templates[key] = f"wallets_{wallets}_{rounds}"
            self._make_template(self._templates[key], wallets, rounds)
        return self._templates[key]

    def _make_template(self, name: str, wallets: int, rounds: int) -> None:
        queries.run(self.postgres_url, f'CREATE DATABASE "{name}"')
        url = self._url(name)
        environment = {"DATABASE_URL": url, "HISTORY_DATABASE_URL": url}
        subprocess.run(
            walletctl("db", "migrate"), env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL
        )
        queries.run(
            url,
            queries.BENCH_SCHEMA,
            "CREATE EXTENSION pg_stat_statements",
            f"CALL bench.make_wallets({wallets}, {BALANCE_MINOR})",
            f"CALL bench.make_rounds({wallets}, {BALANCE_MINOR}, 0, {rounds})",
            "VACUUM ANALYZE",
        )

    @contextmanager
    def place(self, template: str) -> Iterator[Place]:
        """A fresh copy of a template, and a fresh topic; the copy exists during the block.

        FILE_COPY is fast. It begins with a checkpoint, so that none disturbs the measurement soon.
        """
        name = f"place_{next(self._numbers)}"
        queries.run(self.postgres_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        asyncio.run(ensure_topic(admin_client(KafkaConnection(self.kafka_servers)), name, PARTITIONS, TOPIC_CONFIG))
        try:
            yield Place(self._url(name), self.kafka_servers, name)
        finally:
            queries.run(self.postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)')

    @contextmanager
    def service(self, place: Place, role: str, **environment: str) -> Iterator[Service]:
        """Run one of our services on the place during the block; it is ready when the block begins."""
        database_role, *command = COMMANDS[role]
        own = {"WALLET_API_WORKERS": str(self.api_processes), **place.environment_of(database_role), **environment}
        with self.process(role, walletctl(*command), own) as service:
            yield service

    @contextmanager
    def process(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], probe: Probe | None = None
    ) -> Iterator[Service]:
        """Run a process that listens on `$PORT`; it answers `/ready`, unless another probe is given."""
        number = f"{name}-{next(self._numbers)}"
        port = str(self.ports.choose([number], {})[number])
        url = f"http://{HOST}:{port}"
        env = {**dict.fromkeys(_PORTS, port), "PORT": port, "PYTHONPATH": _python_path(), **environment}
        start = launch([word.replace("$PORT", port) for word in command], on_parent_death=signal.SIGTERM, env=env)
        log_file = self.directory / "logs" / f"{number}.log"
        with running(start, log_file, probe or HttpProbe(f"{url}/ready"), signal.SIGTERM) as process:
            yield Service(process.pid, url)

    def _url(self, name: str) -> str:
        return make_url(self.postgres_url).set(database=name).render_as_string(hide_password=False)


def _python_path() -> str:
    """Return the PYTHONPATH with which services find this tree's packages, and the peers."""
    return os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


@contextmanager
def opened(directory: Path, api_processes: int) -> Iterator[Lab]:
    """Run PostgreSQL and Kafka, with their data in the directory, during the block."""
    reservations = PortReservations()
    try:
        with (
            postgres_server(directory, POSTGRES_SETTINGS) as postgres_url,
            kafka_server(directory) as kafka_servers,
        ):
            queries.run(postgres_url, *(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'" for role in Role))
            yield Lab(directory, postgres_url, kafka_servers, api_processes, reservations)
    finally:
        reservations.close()
