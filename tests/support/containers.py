"""PostgreSQL and Kafka in containers, where a Docker engine answers."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

_POSTGRES_IMAGE = "postgres:18"
_KAFKA_IMAGE = "apache/kafka:4.1.0"
_START_SCRIPT = "/tmp/start.sh"


@contextmanager
def postgres_container() -> Iterator[str]:
    """Yield the URL of a PostgreSQL server."""
    with PostgresContainer(_POSTGRES_IMAGE, driver=None) as postgres:
        yield postgres.get_connection_url()


@contextmanager
def kafka_container() -> Iterator[str]:
    """Yield the bootstrap servers of a broker.

    The broker must advertise the port on which clients reach it. That port is known only when the container runs. So
    the container waits for a script that is copied into it then.
    """
    broker = DockerContainer(_KAFKA_IMAGE).with_exposed_ports(9092)
    broker.with_envs(
        KAFKA_NODE_ID="1",
        KAFKA_PROCESS_ROLES="broker,controller",
        KAFKA_LISTENERS="PLAINTEXT://:9092,BROKER://:9093,CONTROLLER://:9094",
        KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
        KAFKA_INTER_BROKER_LISTENER_NAME="BROKER",
        KAFKA_CONTROLLER_QUORUM_VOTERS="1@localhost:9094",
        KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
        KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
        KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
        KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS="1000",
        KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
    )
    broker.with_command(["sh", "-c", f"until [ -f {_START_SCRIPT} ]; do sleep 0.1; done; exec sh {_START_SCRIPT}"])
    with broker:
        address = f"{broker.get_container_host_ip()}:{broker.get_exposed_port(9092)}"
        _start(broker, address)
        LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(60).wait_until_ready(broker)
        yield address


def _start(broker: DockerContainer, address: str) -> None:
    listeners = f"PLAINTEXT://{address},BROKER://localhost:9093"
    script = f"export KAFKA_ADVERTISED_LISTENERS={listeners}\nexec /etc/kafka/docker/run\n".encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(_START_SCRIPT.lstrip("/"))
        entry.size = len(script)
        tar.addfile(entry, io.BytesIO(script))
    broker.get_wrapped_container().put_archive("/", archive.getvalue())
