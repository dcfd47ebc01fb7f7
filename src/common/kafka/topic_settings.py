"""The settings that the topic needs so that no event leaves it unread. Pure; docs/topic.md has the reasons."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

BATCH_BYTES_MAX: Final = 1_000_000
"""The largest batch of records that a relay sends, before compression."""

CHECKED: Final = (
    *("cleanup.policy", "retention.ms", "retention.bytes", "unclean.leader.election.enable"),
    *("min.insync.replicas", "max.message.bytes"),
)
"""Settings whose wrong value may lose events, by Kafka's names (Kafka documentation, "Topic Configs")."""

_BATCH_OVERHEAD_BYTES: Final = 48_588
_REPLICAS_WITH_ONE_TO_SPARE: Final = 3


@dataclass(frozen=True)
class TopicConfiguration:
    """A topic's settings by Kafka's names, and the least number of replicas that one of its partitions has."""

    settings: Mapping[str, str]
    replicas: int


@dataclass(frozen=True)
class WrongSetting:
    """The value that a setting has, and the value, or the least number, that it must have."""

    found: str
    wanted: str


def needed_settings(retention_ms: int) -> dict[str, str]:
    """Return the settings for a new topic. The broker's defaults may lose events.

    Args:
        retention_ms: how long the topic keeps events, in milliseconds; -1 means for ever.
    """
    return {
        # Compaction would keep only the newest event of each wallet.
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "retention.bytes": "-1",
        # A replica that lags behind lacks events that the broker has acknowledged.
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(BATCH_BYTES_MAX + _BATCH_OVERHEAD_BYTES),
        # With a relay's timestamps, the broker refuses records of a relay whose clock is ahead.
        "message.timestamp.type": "LogAppendTime",
    }


def wrong_settings(found: TopicConfiguration, retention_ms: int) -> dict[str, WrongSetting]:
    """Return by name the settings of a topic that may lose events.

    Args:
        found: the topic as the broker has it.
        retention_ms: how long the topic must keep events, in milliseconds; -1 means for ever.
    """
    # An event that only one replica acknowledged is lost with that replica. Where two of two must acknowledge, no
    # broker may ever be away.
    in_sync = 2 if found.replicas >= _REPLICAS_WITH_ONE_TO_SPARE else 1
    wanted = {**needed_settings(retention_ms), "min.insync.replicas": str(in_sync)}
    return {
        name: WrongSetting(value, wanted[name])
        for name in CHECKED
        if (value := found.settings.get(name)) is not None and not _is_enough(value, wanted[name])
    }


def _is_enough(value: str, wanted: str) -> bool:
    """Return whether the value is the wanted one, or a number that is no less; -1 means without a limit."""
    if value == wanted:
        return True
    try:
        number, least = int(value), int(wanted)
    except ValueError:
        return False
    return number == -1 or (least != -1 and number >= least)


def settings_warning(topic: str, wrong: Mapping[str, WrongSetting]) -> str:
    """Return one line: the topic's wrong settings, and the Kafka command that corrects them."""
    found = ", ".join(f"{name} is {setting.found}, not {setting.wanted}" for name, setting in wrong.items())
    settings = ",".join(f"{name}={setting.wanted}" for name, setting in wrong.items())
    return (
        f"topic {topic} may lose events: {found}. Correct it: kafka-configs.sh --bootstrap-server HOST:PORT --alter "
        f"--entity-type topics --entity-name {topic} --add-config {settings}"
    )
