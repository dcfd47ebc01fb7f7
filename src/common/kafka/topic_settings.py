"""What the topic of the events needs, so that no event leaves it unread: docs/topic.md has the reasons."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the stubs leave some out
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from common.kafka.clients import admin_client
from common.kafka.topics import TopicMissingError

BATCH_BYTES_MAX: Final = 1_000_000
"""The largest batch of records that a relay sends, before compression."""

CHECKED: Final = (
    *("cleanup.policy", "retention.ms", "retention.bytes", "unclean.leader.election.enable"),
    *("min.insync.replicas", "max.message.bytes"),
)
"""Settings with which events may be lost, by Kafka's names (its documentation, "Topic Configs")."""

_BATCH_OVERHEAD_BYTES: Final = 48_588
_REPLICAS_WITH_ONE_TO_SPARE: Final = 3
_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class FoundTopic:
    """A topic as the broker has it: its settings, and how many replicas its partitions have at least."""

    settings: Mapping[str, str]
    replicas: int


@dataclass(frozen=True)
class WrongSetting:
    """What a setting is, and what it must be, or be at least."""

    found: str
    wanted: str


def needed_settings(retention_ms: int) -> dict[str, str]:
    """Return what a new topic is given, since a broker's defaults may be anything.

    Args:
        retention_ms: how long events are kept; -1 is for ever.
    """
    return {
        # Compaction keeps one event of each wallet.
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "retention.bytes": "-1",
        # A replica that lags behind lacks events that were acknowledged.
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(BATCH_BYTES_MAX + _BATCH_OVERHEAD_BYTES),
        # By the broker's clock: by a relay's, a broker refuses what comes from too far ahead.
        "message.timestamp.type": "LogAppendTime",
    }


def wrong_settings(found: FoundTopic, retention_ms: int) -> dict[str, WrongSetting]:
    """Return the settings of a topic with which events may be lost, by name; none, if all is well."""
    # What one replica alone has acknowledged is lost with it; two of two would let no broker ever be away.
    in_sync = 2 if found.replicas >= _REPLICAS_WITH_ONE_TO_SPARE else 1
    wanted = {**needed_settings(retention_ms), "min.insync.replicas": str(in_sync)}
    return {
        name: WrongSetting(value, wanted[name])
        for name in CHECKED
        if (value := found.settings.get(name)) is not None and not _is_enough(value, wanted[name])
    }


def _is_enough(value: str, wanted: str) -> bool:
    """Whether it is the word that is wanted, or a number that is no less; -1 is without a bound."""
    if value == wanted:
        return True
    try:
        number, least = int(value), int(wanted)
    except ValueError:
        return False
    return number == -1 or (least != -1 and number >= least)


def way_out(topic: str, wrong: Mapping[str, WrongSetting]) -> str:
    """Return one line: what is wrong with the topic, and the command of Kafka's that mends it."""
    found = ", ".join(f"{name} is {setting.found}, not {setting.wanted}" for name, setting in wrong.items())
    settings = ",".join(f"{name}={setting.wanted}" for name, setting in wrong.items())
    return (
        f"topic {topic} may lose events: {found}. Mend it: kafka-configs.sh --bootstrap-server HOST:PORT --alter "
        f"--entity-type topics --entity-name {topic} --add-config {settings}"
    )


async def find_topic(bootstrap_servers: str, topic: str) -> FoundTopic:
    """Ask the broker for a topic's settings; needs DESCRIBE and DESCRIBE_CONFIGS of the topic.

    Raises:
        TopicMissingError: there is no such topic.
        KafkaException: the broker is away, or refuses.
    """
    return await asyncio.to_thread(_find_topic, bootstrap_servers, topic)


async def set_settings(bootstrap_servers: str, topic: str, settings: Mapping[str, str]) -> None:
    """Set these of the topic's settings and no other; needs ALTER_CONFIGS of the topic.

    Raises:
        KafkaException: the broker is away, or refuses.
    """
    await asyncio.to_thread(_set_settings, bootstrap_servers, topic, settings)


def _find_topic(bootstrap_servers: str, topic: str) -> FoundTopic:
    # A client of its own, for the reason that `describe_topic` has.
    admin = admin_client(bootstrap_servers)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=_TIMEOUT_SECONDS)[topic].result()
        entries = admin.describe_configs([resource], request_timeout=_TIMEOUT_SECONDS)[resource].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMissingError(topic) from error
        raise
    finally:
        del admin
    settings = {name: entry.value for name, entry in entries.items() if entry.value is not None}
    return FoundTopic(settings, min(len(partition.replicas) for partition in described.partitions))


def _set_settings(bootstrap_servers: str, topic: str, settings: Mapping[str, str]) -> None:
    admin = admin_client(bootstrap_servers)
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    try:
        admin.incremental_alter_configs([resource], request_timeout=_TIMEOUT_SECONDS)[resource].result()
    finally:
        del admin
