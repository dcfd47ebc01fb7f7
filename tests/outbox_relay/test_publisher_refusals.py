"""Producers that a broker refuses: each says why, and no longer anything once it is replaced."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AclOperation, ResourceType  # type: ignore[attr-defined]
from prometheus_client import REGISTRY

from common.kafka.topic_settings import needed_settings
from common.kafka.topics import ensure_topic
from common.secrets import Secret
from outbox_relay.outcomes import Report
from outbox_relay.publisher import BrokerAwayError, Publisher
from outbox_relay.queries import PendingRow
from outbox_relay.settings import RelaySettings
from support.brokers_with_acls import BrokerWithAcls


def refusals(reason: str) -> float:
    return REGISTRY.get_sample_value("kafka_refusals_total", {"reason": reason}) or 0


async def test_a_refused_producer_that_cannot_be_replaced_says_and_counts_nothing_any_more(
    relay_settings: RelaySettings, guarded: BrokerWithAcls, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")
    login = guarded.by_password("PLAIN", "relay", Secret(file=file))
    publisher = Publisher(relay_settings.model_copy(update={**login, "kafka_topic": f"none_{uuid4().hex}"}))

    def ping_without_the_file() -> float:
        with pytest.raises(BrokerAwayError, match="Authentication failed"):
            publisher.ping()
        file.unlink()
        counted = refusals("authentication")
        for _ in range(3):
            with pytest.raises(BrokerAwayError, match="KAFKA_SASL_PASSWORD_FILE"):
                publisher.ping()
        return refusals("authentication") - counted

    assert await asyncio.to_thread(ping_without_the_file) == 0
    publisher.close()


@pytest.fixture
def row() -> PendingRow:
    return PendingRow(1, 0, str(uuid4()), str(uuid4()), "WALLET_FUNDED", "{}", None, datetime.now(UTC), 1, False)


def until_refused(publisher: Publisher) -> None:
    """Wait until the new producer takes no record, while nothing asks it for its errors."""
    with suppress(KafkaException):
        while True:
            publisher._producer.produce(publisher._settings.kafka_topic, b"{}")
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("may_describe", "is_late"),
    [(True, False), (True, True), (False, True)],
    ids=["denied", "denied before the first record", "denied the topic"],
)
async def test_each_report_says_why_the_broker_refuses_the_producer_and_each_refusal_is_counted(
    relay_settings: RelaySettings, guarded: BrokerWithAcls, row: PendingRow, may_describe: bool, is_late: bool
) -> None:
    """On a busy machine a producer is refused before its first record."""
    topic = f"guarded_{uuid4().hex}"
    await ensure_topic(guarded.admin, topic, 3, needed_settings(-1))
    if may_describe:
        guarded.allow(ResourceType.TOPIC, topic, AclOperation.DESCRIBE)
    changes = {"kafka_bootstrap_servers": guarded.bootstrap_servers, "kafka_topic": topic}
    publisher = Publisher(relay_settings.model_copy(update=changes))

    def publish() -> Report:
        publisher._replace_if_stale()
        if is_late:
            until_refused(publisher)
        return publisher.publish([row])[row.id]

    before = refusals("authorization")
    reports = [await asyncio.to_thread(publish) for _ in range(5)]
    publisher.close()
    assert all("authorization failed" in str(report) for report in reports), reports
    assert refusals("authorization") == before + 5
