"""The properties of Kafka's client library: which ones an operator's file may set, and whether a client takes them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

KEPT: Final = frozenset(
    {
        # Settings of this program.
        *("bootstrap.servers", "metadata.broker.list", "compression.type", "compression.codec", "group.id"),
        *("group.protocol", "session.timeout.ms", "delivery.timeout.ms", "message.timeout.ms"),
        # Each event is written once and in order, or the relay learns that it was not.
        *("acks", "request.required.acks", "enable.idempotence", "enable.gapless.guarantee", "transactional.id"),
        *("retries", "message.send.max.retries", "max.in.flight", "max.in.flight.requests.per.connection"),
        *("message.max.bytes", "batch.size", "partitioner", "queuing.strategy"),
        *("delivery.report.only.error", "produce.offset.report"),
        # The history database has the positions, and a reader sees each record and each end.
        *("enable.auto.commit", "auto.commit.enable", "enable.auto.offset.store", "offset.store.method"),
        *("auto.offset.reset", "isolation.level", "enable.partition.eof", "check.crcs"),
        # Each consumer is a member of its own.
        *("group.instance.id", "group.protocol.type", "group.remote.assignor", "partition.assignment.strategy"),
        *("heartbeat.interval.ms", "max.poll.interval.ms"),
        # The brokers and the topic are real.
        *("allow.auto.create.topics", "topic.blacklist", "test.mock.num.brokers"),
    }
)
"""Properties that the guarantees need as this program sets them, with their aliases (librdkafka, CONFIGURATION.md)."""

_silent = logging.getLogger("librdkafka.trial")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


def read_properties(file: Path) -> dict[str, str]:
    """Return the properties of a file with lines `name=value`; blank lines and lines with `#` first don't count.

    Raises:
        ValueError: the file is unreadable, has another line, has a name twice, or has one of `KEPT`.
    """
    try:
        lines = file.read_bytes().decode().splitlines()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror} (name a file that this process can read)") from error
    except UnicodeDecodeError:
        # The error would show what the file holds.
        raise ValueError(f"{file}: is not UTF-8 (write it as UTF-8 text)") from None
    properties: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in text.partition("="))
        if problem := _problem_of(name, equals, properties):
            raise ValueError(f"{file}, line {number}: {problem}")
        properties[name] = value
    return properties


def _problem_of(name: str, equals: str, earlier: Mapping[str, str]) -> str:
    # The message must not show the line: it may hold a password.
    if not equals or not name:
        return "must be name=value"
    if name in KEPT:
        return f"{name} can't be changed, because the guarantees need this program's value (remove the line)"
    if name in earlier:
        return f"{name} stands there twice (remove one of the lines)"
    # Other names with underscores are callbacks, which text can't be.
    return f"{name} is not a property of librdkafka" if "_" in name and name != "log_level" else ""


def refusal_by_client(properties: Mapping[str, str]) -> str:
    """Return why the library makes no client with these properties; empty if it makes one. Nothing is connected to."""
    # Imported here, because the APIs need no Kafka client.
    from confluent_kafka import KafkaException  # noqa: PLC0415
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    trial: dict[str, Any] = dict(properties)
    if trial.get("sasl.mechanism") == "OAUTHBEARER":
        # The client would ask for a token at once.
        trial["security.protocol"] = trial["security.protocol"].upper().removeprefix("SASL_")
    try:
        AdminClient(trial | {"logger": _silent})
    except KafkaException as error:
        return " ".join(error.args[0].str().split()).removeprefix("Failed to create producer: ")
    return ""
