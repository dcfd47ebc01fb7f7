"""Debezium: change data capture of the same outbox table, configured as its documentation says.

Kafka Connect runs standalone, with Debezium's PostgreSQL connector and its outbox event router. Queue, batch and poll
interval are set for speed. Source: debezium.io, "PostgreSQL connector" and "Outbox Event Router", 3.4.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url

from benchmarks import queries
from benchmarks.lab import Lab
from benchmarks.place import Place
from walletctl.stack.jars import KAFKA_VERSION, class_path
from walletctl.stack.kafka import JVM_OPTIONS, LOG4J, java
from walletctl.stack.readiness import Probe

VERSION: Final = "3.4.0.Final"
SLOT: Final = "bench"
# Kafka's own jars are named, because Debezium would bring in other versions.
ENDPOINT: Final = "+".join(
    (
        f"io.debezium:debezium-connector-postgres:{VERSION}",
        *(
            f"org.apache.kafka:{name}:{KAFKA_VERSION}"
            for name in ("connect-runtime", "connect-api", "connect-transforms", "connect-json", "kafka-clients")
        ),
        # The version for which Connect's REST server is built; Maven would choose an older one, nearer to the root.
        "jakarta.ws.rs:jakarta.ws.rs-api:3.1.0",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",
        "org.apache.logging.log4j:log4j-core:2.24.3",
    )
)


@dataclass(frozen=True)
class SlotProbe(Probe):
    """Ready if the connector streams from its slot."""

    url: str

    async def problem(self) -> str | None:
        """Ask PostgreSQL whether the slot is active."""
        active = await queries.fetch_value(self.url, queries.SLOT_IS_ACTIVE, SLOT)
        return None if active else f"no connector reads the slot {SLOT}"


@contextmanager
def slot(place: Place) -> Iterator[None]:
    """Create the publication and the slot, which captures rows written from now on. The slot is dropped at the end."""
    queries.run(place.url, queries.MAKE_PUBLICATION)
    queries.value(place.url, queries.MAKE_SLOT, SLOT)
    try:
        yield
    finally:
        queries.poll(place.url, queries.DROP_SLOT, bool, pause_seconds=0.1, timeout_seconds=30)


@contextmanager
def running(lab: Lab, place: Place) -> Iterator[None]:
    """Run Kafka Connect with the connector during the block."""
    directory = lab.directory / f"debezium-{place.topic}"
    directory.mkdir()
    files = {
        "worker.properties": _properties(_worker(place, directory)),
        "connector.properties": _properties(_connector(place)),
        "log4j2.properties": LOG4J,
    }
    for name, text in files.items():
        (directory / name).write_text(text)
    command = [
        *(str(java()), *JVM_OPTIONS, "-Xmx768m"),
        f"-Dlog4j2.configurationFile={(directory / 'log4j2.properties').as_uri()}",
        *("-cp", ":".join(class_path(ENDPOINT, "Debezium"))),
        "org.apache.kafka.connect.cli.ConnectStandalone",
        *(str(directory / name) for name in ("worker.properties", "connector.properties")),
    ]
    with lab.process("debezium", command, {}, SlotProbe(place.url)):
        yield


def _worker(place: Place, directory: Path) -> dict[str, str]:
    string = "org.apache.kafka.connect.storage.StringConverter"
    return {
        "bootstrap.servers": place.kafka_servers,
        "key.converter": string,
        "value.converter": string,
        "offset.storage.file.filename": str(directory / "offsets"),
        "offset.flush.interval.ms": "1000",
        "listeners": "http://127.0.0.1:0",
        "plugin.discovery": "only_scan",
        "producer.acks": "all",
        "producer.compression.type": "lz4",
    }


def _connector(place: Place) -> dict[str, str]:
    url = make_url(place.url)
    router = "transforms.outbox"
    return {
        "name": "outbox",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": str(url.host),
        "database.port": str(url.port),
        "database.user": str(url.username),
        "database.password": str(url.password),
        "database.dbname": str(url.database),
        "topic.prefix": "bench",
        "plugin.name": "pgoutput",
        "slot.name": SLOT,
        "publication.name": "bench",
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": "no_data",
        "table.include.list": "wallet.outbox",
        "tombstones.on.delete": "false",
        "max.batch.size": "8192",
        "max.queue.size": "32768",
        "poll.interval.ms": "5",
        "transforms": "outbox",
        f"{router}.type": "io.debezium.transforms.outbox.EventRouter",
        f"{router}.table.field.event.id": "event_id",
        f"{router}.table.field.event.key": "aggregate_id",
        f"{router}.table.field.event.payload": "payload",
        f"{router}.table.fields.additional.placement": "event_type:header:ce_type",
        f"{router}.route.by.field": "event_type",
        f"{router}.route.topic.replacement": place.topic,
    }


def _properties(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={text}\n" for name, text in settings.items())
