"""The relay's topic: created with its settings, monitored; and what a relay reports that may not create or see it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
import structlog
from confluent_kafka.admin import AclOperation, ResourceType  # type: ignore[attr-defined]
from prometheus_client import REGISTRY
from structlog.testing import LogCapture

import outbox_relay.topic
from common.kafka.connection import KafkaConnection
from common.kafka.topic_settings import needed_settings, wrong_settings
from common.kafka.topics import ensure_topic, find_topic, set_settings
from common.worker import Health
from outbox_relay.publisher import Publisher
from outbox_relay.run import relay_until
from outbox_relay.settings import RelaySettings
from outbox_relay.topic import TopicMonitor, prepare_topic
from support.brokers_with_acls import BrokerWithAcls
from support.outboxes import Outbox

Eventually = Callable[..., Awaitable[Any]]
CLUSTER = (ResourceType.BROKER, "kafka-cluster")


@pytest.fixture
def guarded_settings(relay_settings: RelaySettings, guarded: BrokerWithAcls) -> RelaySettings:
    """The settings of a relay on that broker. Its topic is missing, and it has no rights yet."""
    changes = {
        "kafka_bootstrap_servers": guarded.bootstrap_servers,
        "kafka_topic": f"guarded_{uuid4().hex}",
        "relay_ops_port": 0,
    }
    return relay_settings.model_copy(update=changes)


def wrong_by_metric(setting: str) -> float | None:
    return REGISTRY.get_sample_value("outbox_relay_topic_setting_wrong", {"setting": setting})


async def test_a_topic_is_created_with_the_settings_it_needs_whatever_the_brokers_defaults(
    relay_settings: RelaySettings, kafka_bootstrap_servers: str
) -> None:
    settings = relay_settings.model_copy(update={"kafka_topic": f"fresh_{uuid4().hex}"})
    assert await prepare_topic(asyncio.Event(), settings, Health())
    found = await find_topic(KafkaConnection(kafka_bootstrap_servers), settings.kafka_topic)
    assert needed_settings(-1).items() <= found.settings.items()
    assert wrong_settings(found, -1) == {}


async def test_a_topic_that_may_lose_events_is_a_warning_and_events_are_published(
    relay_settings: RelaySettings, kafka_bootstrap_servers: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = LogCapture()
    monkeypatch.setattr(outbox_relay.topic, "log", structlog.wrap_logger(None, processors=[seen]))
    health, publisher = Health(), Publisher(relay_settings)
    monitor = TopicMonitor(relay_settings, health, [publisher])
    await set_settings(
        KafkaConnection(kafka_bootstrap_servers), topic, {"cleanup.policy": "compact", "max.message.bytes": "5000"}
    )
    await monitor.run_once()
    await monitor.run_once()
    assert [entry["event"] for entry in seen.entries] == ["topic_settings"]
    said = health.checks["topic"]
    assert said.startswith("warning: ")
    assert "cleanup.policy is compact, not delete" in said
    assert f"--entity-name {topic} --add-config cleanup.policy=delete" in said
    assert (wrong_by_metric("cleanup.policy"), wrong_by_metric("retention.bytes")) == (1, 0)
    assert publisher.batch_bytes_max == 5000
    await set_settings(KafkaConnection(kafka_bootstrap_servers), topic, needed_settings(-1))
    await monitor.run_once()
    assert (health.checks["topic"], wrong_by_metric("cleanup.policy")) == ("ok", 0)
    assert publisher.batch_bytes_max == 1_000_000


async def test_a_relay_without_the_right_to_create_topics_uses_the_existing_one(
    guarded: BrokerWithAcls,
    guarded_settings: RelaySettings,
    outbox: Outbox,
    eventually: Eventually,
) -> None:
    topic = guarded_settings.kafka_topic
    await ensure_topic(guarded.admin, topic, 3, needed_settings(-1))
    guarded.allow(ResourceType.TOPIC, topic, AclOperation.DESCRIBE, AclOperation.WRITE)
    await outbox.write(uuid4(), 3)
    stop, health = asyncio.Event(), Health()
    relaying = asyncio.create_task(relay_until(stop, guarded_settings, health))
    try:

        async def published() -> bool:
            return all(row["published_at"] for row in await outbox.rows())

        await eventually(published)

        async def checked() -> bool:
            return "topic" in health.checks

        await eventually(checked)
        # The relay may not even read the settings, which is a warning, not a failure.
        assert "could not be checked" in health.checks["topic"]
        assert wrong_by_metric("cleanup.policy") == -1
        assert (health.checks["kafka"], health.checks["database"]) == ("ok", "ok")
    finally:
        stop.set()
        await relaying


async def test_a_relay_waits_for_a_missing_topic_that_it_may_not_create_and_readiness_says_how_to_create_it(
    guarded: BrokerWithAcls, guarded_settings: RelaySettings, eventually: Eventually
) -> None:
    topic = guarded_settings.kafka_topic
    health = Health()
    preparing = asyncio.create_task(prepare_topic(asyncio.Event(), guarded_settings, health))

    def says(*words: str) -> Callable[[], Awaitable[bool]]:
        async def said() -> bool:
            return all(word in health.checks.get("kafka", "") for word in words)

        return said

    await eventually(says("may not use it", "DESCRIBE and WRITE"))
    guarded.allow(ResourceType.TOPIC, topic, AclOperation.DESCRIBE, AclOperation.WRITE)
    await eventually(says(f"topic {topic} is missing", "may not create it", "kafka-topics.sh --create"))
    await ensure_topic(guarded.admin, topic, 3, needed_settings(-1))
    assert await asyncio.wait_for(preparing, 20)
    assert health.checks["kafka"] == "ok"


async def test_a_relay_waits_for_a_missing_topic_if_topic_creation_is_off(
    relay_settings: RelaySettings, eventually: Eventually
) -> None:
    settings = relay_settings.model_copy(update={"kafka_topic": f"no_{uuid4().hex}", "kafka_topic_create": False})
    stop, health = asyncio.Event(), Health()
    preparing = asyncio.create_task(prepare_topic(stop, settings, health))

    async def said() -> bool:
        return "KAFKA_TOPIC_CREATE is off" in health.checks.get("kafka", "")

    await eventually(said)
    stop.set()
    assert not await asyncio.wait_for(preparing, 20)


async def test_a_relay_that_may_not_write_is_not_ready_all_the_time(
    guarded: BrokerWithAcls,
    guarded_settings: RelaySettings,
    outbox: Outbox,
    eventually: Eventually,
) -> None:
    """The broker answers, but refuses every record: the relay isn't ready."""
    topic = guarded_settings.kafka_topic
    await ensure_topic(guarded.admin, topic, 3, needed_settings(-1))
    guarded.allow(ResourceType.TOPIC, topic, AclOperation.DESCRIBE)
    await outbox.write(uuid4())
    stop, health = asyncio.Event(), Health()
    relaying = asyncio.create_task(relay_until(stop, guarded_settings, health))
    try:
        before = REGISTRY.get_sample_value("kafka_refusals_total", {"reason": "authorization"}) or 0

        async def refused() -> bool:
            return "authorization" in health.checks.get("kafka", "").lower()

        await eventually(refused)
        states = set()
        for _ in range(100):
            states.add(health.checks["kafka"])
            await asyncio.sleep(0.02)
        assert "ok" not in states
        assert (REGISTRY.get_sample_value("kafka_refusals_total", {"reason": "authorization"}) or 0) > before
        guarded.allow(ResourceType.TOPIC, topic, AclOperation.WRITE)

        async def recovered() -> bool:
            return health.checks["kafka"] == "ok" and all(row["published_at"] for row in await outbox.rows())

        await eventually(recovered)
    finally:
        stop.set()
        await relaying
