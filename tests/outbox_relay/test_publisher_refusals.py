"""Producers that a broker refuses: each says why, and no longer anything once it is replaced."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from common.secrets import Secret
from outbox_relay.publisher import BrokerAwayError, Publisher
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
