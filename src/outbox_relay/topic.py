"""The relay's topic: created if it is missing, and monitored. docs/topic.md says which settings it needs."""

import asyncio
from collections.abc import Collection
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from common.kafka.clients import admin_client
from common.kafka.refusals import explained
from common.kafka.topic_settings import (
    BATCH_BYTES_MAX,
    CHECKED,
    needed_settings,
    settings_warning,
    wrong_settings,
)
from common.kafka.topics import TopicMissingError, describe_topic, ensure_topic, find_topic, set_settings
from common.pauses import FAILURE_PAUSES, Pauses, pause
from common.worker import Health
from outbox_relay import metrics
from outbox_relay.publisher import Publisher
from outbox_relay.settings import RelaySettings

log = structlog.get_logger()

CHECK_PAUSES: Final = Pauses(60.0, 60.0)
"""How often a relay checks the topic's settings."""

_NOT_ALLOWED: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


class TopicNotReadyError(Exception):
    """The relay can't use the topic until an operator acts; the message says how."""


async def prepare_topic(stop: asyncio.Event, settings: RelaySettings, health: Health) -> bool:
    """Wait until the topic exists, and create it if it is missing; return False if `stop` came first.

    The relay asks for the topic first, so that it needs no right to create topics where the topic exists.
    """
    failures = 0
    while not stop.is_set():
        try:
            await _require_topic(settings)
        except (KafkaException, TopicNotReadyError) as error:
            failures += 1
            why = explained(error.args[0]) if isinstance(error, KafkaException) else str(error)
            health.failed("kafka", why)
            metrics.failures.labels("kafka").inc()
            log.warning("topic_not_prepared", error=why, failures=failures)
            await pause(stop, FAILURE_PAUSES.after(failures))
            continue
        health.ok("kafka")
        return True
    return False


async def _require_topic(settings: RelaySettings) -> None:
    topic, partitions = settings.kafka_topic, settings.kafka_topic_partitions
    by_hand = (
        f"run kafka-topics.sh --create --topic {topic} --partitions {partitions}, with the settings of docs/topic.md"
    )
    try:
        await describe_topic(settings.kafka, topic)
    except TopicMissingError:
        if not settings.kafka_topic_create:
            raise TopicNotReadyError(f"topic {topic} is missing, and KAFKA_TOPIC_CREATE is off: {by_hand}") from None
        try:
            await _create_topic(settings)
        except KafkaException as error:
            if error.args[0].code() not in _NOT_ALLOWED:
                raise
            what = f"topic {topic} is missing, and this relay may not create it: {by_hand}, or grant the relay CREATE"
            raise TopicNotReadyError(what) from error
    except KafkaException as error:
        if error.args[0].code() not in _NOT_ALLOWED:
            raise
        what = f"topic {topic} is missing, or this relay may not use it: grant it DESCRIBE and WRITE on the topic"
        raise TopicNotReadyError(what) from error


async def _create_topic(settings: RelaySettings) -> None:
    connection, topic = settings.kafka, settings.kafka_topic
    needed = needed_settings(settings.kafka_topic_retention_ms)
    if not await ensure_topic(admin_client(connection), topic, settings.kafka_topic_partitions, needed):
        return
    log.info("topic_created", topic=topic, partitions=settings.kafka_topic_partitions, settings=needed)
    try:
        # min.insync.replicas depends on the number of replicas, which the broker has chosen.
        wrong = wrong_settings(await _find_new(connection, topic), settings.kafka_topic_retention_ms)
        if wrong:
            await set_settings(connection, topic, {name: setting.wanted for name, setting in wrong.items()})
    except (KafkaException, TopicMissingError) as error:
        # The topic monitor reports what is wrong with it.
        log.warning("topic_settings_not_set", topic=topic, error=str(error))


# Brokers learn of a new topic one after the other.
_find_new = retry(
    retry=retry_if_exception_type(TopicMissingError), stop=stop_after_delay(10), wait=wait_fixed(0.1), reraise=True
)(find_topic)


class TopicMonitor:
    """Checks the topic's settings, reports wrong ones, and limits batches to the size that the topic takes.

    A wrong setting is a warning in `/ready`, not a failure. If the relay were stopped for it, all events would be late
    now, because some may be lost later.
    """

    def __init__(self, settings: RelaySettings, health: Health, publishers: Collection[Publisher]) -> None:
        self._settings = settings
        self._health = health
        self._publishers = publishers
        self._last_warning = ""

    async def run_once(self) -> int:
        """Check the settings once; return 0: nothing more to do until the next check."""
        topic = self._settings.kafka_topic
        try:
            found = await find_topic(self._settings.kafka, topic)
        except (KafkaException, TopicMissingError) as error:
            self._report(f"the settings of topic {topic} could not be checked: {error}", dict.fromkeys(CHECKED, -1))
            return 0
        for publisher in self._publishers:
            publisher.batch_bytes_max = min(BATCH_BYTES_MAX, int(found.settings["max.message.bytes"]))
        wrong = wrong_settings(found, self._settings.kafka_topic_retention_ms)
        self._report(settings_warning(topic, wrong) if wrong else "", {name: int(name in wrong) for name in CHECKED})
        return 0

    def _report(self, warning: str, figures: dict[str, int]) -> None:
        for name, figure in figures.items():
            metrics.topic_setting_wrong.labels(name).set(figure)
        if warning:
            self._health.warn("topic", warning)
        else:
            self._health.ok("topic")
        if warning and warning != self._last_warning:
            log.warning("topic_settings", warning=warning)
        self._last_warning = warning
