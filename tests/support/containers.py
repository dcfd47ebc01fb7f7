"""PostgreSQL and Kafka in containers, where a Docker engine answers on this machine.

`docker run` stays in the foreground and passes signals on, so a container ends with the tests, however they end. Its
settings are those of the local stack's server.
"""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from tools.servers import reserved, running
from walletctl.stack.kafka import ONE_BROKER
from walletctl.stack.launch import Launch, launch
from walletctl.stack.ports import HOST
from walletctl.stack.postgres import DATABASE, DEFAULT_SETTINGS, INITDB_OPTIONS, SUPERUSER, login_url
from walletctl.stack.readiness import KafkaProbe, PostgresProbe

_POSTGRES_IMAGE = "postgres:18"
_KAFKA_IMAGE = "apache/kafka:4.1.0"


@contextmanager
def postgres_container(directory: Path) -> Iterator[str]:
    """Yield the URL of a PostgreSQL server, as the superuser. Its log is in `directory`."""
    log_file, password = directory / "postgres.log", token_hex(16)
    environment = {
        "POSTGRES_USER": SUPERUSER,
        "POSTGRES_PASSWORD": password,
        "POSTGRES_DB": DATABASE,
        "POSTGRES_INITDB_ARGS": " ".join(("--no-sync", "--auth-host=scram-sha-256", *INITDB_OPTIONS)),
    }
    # The data are deleted after the tests, so they need not survive a power failure.
    settings = [f"-c{name}={value}" for name, value in {**DEFAULT_SETTINGS, "fsync": "off"}.items()]
    with reserved("container-postgres") as (port,):
        url = login_url(SUPERUSER, password, port)
        # On SIGINT PostgreSQL ends the sessions; on SIGTERM it would wait for their end.
        start = _docker_run(f"{port}:5432", environment, [_POSTGRES_IMAGE, "postgres", *settings], signal.SIGINT)
        with running(start, log_file, PostgresProbe(url), signal.SIGINT):
            yield url


@contextmanager
def kafka_container(directory: Path) -> Iterator[str]:
    """Yield the bootstrap servers of a broker. Its log is in `directory`.

    The broker listens on the same port inside and outside: it tells clients, and itself, one address.
    """
    with reserved("container-kafka") as (port,):
        settings = {
            **ONE_BROKER,
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": "1@localhost:9093",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": f"PLAINTEXT://:{port},CONTROLLER://localhost:9093",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        }
        environment = {f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in settings.items()}
        environment["KAFKA_HEAP_OPTS"] = "-Xmx384m"
        start = _docker_run(f"{port}:{port}", environment, [_KAFKA_IMAGE], signal.SIGTERM)
        with running(start, directory / "kafka.log", KafkaProbe(HOST, port), signal.SIGTERM):
            yield f"{HOST}:{port}"


def _docker_run(
    ports: str, environment: Mapping[str, str], image_and_command: Sequence[str], on_parent_death: signal.Signals
) -> Launch:
    """Return how to run a container with one published port. Values, such as passwords, are no arguments."""
    options = ["--rm", f"--publish={HOST}:{ports}", "--shm-size=256m", *(f"--env={name}" for name in environment)]
    engine = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
    command = ["docker", "run", *options, *image_and_command]
    return launch(command, on_parent_death=on_parent_death, env={**engine, **environment})
