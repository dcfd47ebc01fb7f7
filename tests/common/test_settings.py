from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from history_consumer.settings import ConsumerSettings, HistoryApiSettings
from outbox_relay.publisher import PUBLISH_MARGIN_SECONDS
from outbox_relay.run import HUNG_TRANSACTION_SECONDS
from outbox_relay.settings import RelaySettings
from wallet_api.settings import WalletApiSettings

SERVERS: dict[str, Any] = {
    "database_url": "postgresql://127.0.0.1/none",
    "kafka_bootstrap_servers": "127.0.0.1:1",
}


@pytest.mark.parametrize(
    ("settings", "changes", "names"),
    [
        (
            RelaySettings,
            {"relay_poll_first_seconds": 2},
            ("RELAY_POLL_LONGEST", "RELAY_POLL_FIRST_SECONDS"),
        ),
        (RelaySettings, {"relay_poll_longest_seconds": 0.001}, ("RELAY_POLL_LONGEST", "RELAY_POLL_FIRST_SECONDS")),
        (RelaySettings, {"kafka_topic_retention_ms": 1}, ("OUTBOX_RETENTION_DAYS", "KAFKA_TOPIC_RETENTION_MS")),
        (
            RelaySettings,
            {"kafka_topic_retention_ms": 86_400_000, "outbox_retention_days": 2},
            ("OUTBOX_RETENTION_DAYS", "KAFKA_TOPIC_RETENTION_MS, which is 1 days"),
        ),
        (RelaySettings, {"relay_delivery_timeout_seconds": 60}, ("RELAY_DELIVERY_TIMEOUT_SECONDS", "10")),
        (WalletApiSettings, {"pool_timeout_seconds": 30}, ("POOL_TIMEOUT_SECONDS", "REQUEST_DEADLINE_SECONDS")),
        (
            WalletApiSettings,
            {"request_deadline_seconds": 0.7, "database_connect_timeout_seconds": 0.5},
            ("POOL_TIMEOUT_SECONDS", "REQUEST_DEADLINE_SECONDS, which is 0.7"),
        ),
        (
            HistoryApiSettings,
            {"database_connect_timeout_seconds": 11},
            ("DATABASE_CONNECT_TIMEOUT_SECONDS", "REQUEST_DEADLINE_SECONDS"),
        ),
        (HistoryApiSettings, {"history_pool_timeout_seconds": 11}, ("HISTORY_POOL_TIMEOUT", "REQUEST_DEADLINE")),
    ],
)
def test_settings_that_break_an_order_rule_are_refused_with_both_names(
    settings: Callable[..., Any], changes: dict[str, Any], names: tuple[str, str]
) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**SERVERS, **changes)
    said = " ".join(f"{error['loc'][0]} {error['msg']}".upper() for error in refused.value.errors())
    assert all(name.upper() in said for name in names)


@pytest.mark.parametrize("settings", [RelaySettings, WalletApiSettings, HistoryApiSettings, ConsumerSettings])
def test_the_default_settings_obey_the_order_rules(settings: Callable[..., Any]) -> None:
    settings(**SERVERS)


def test_settings_that_are_changed_together_obey_the_order_rules() -> None:
    RelaySettings(**SERVERS, relay_poll_first_seconds=1, relay_poll_longest_seconds=1)
    RelaySettings(**SERVERS, kafka_topic_retention_ms=86_400_000, outbox_retention_days=1)
    WalletApiSettings(**SERVERS, request_deadline_seconds=90, pool_timeout_seconds=60)


def test_publishing_ends_before_postgresql_ends_the_session() -> None:
    most = RelaySettings(**SERVERS, relay_delivery_timeout_seconds=10)
    assert most.relay_delivery_timeout_seconds + PUBLISH_MARGIN_SECONDS < HUNG_TRANSACTION_SECONDS


@pytest.mark.parametrize("parameter", ["sslmod=require", "statement_cache_size=0"])
def test_a_url_with_an_unknown_parameter_is_refused_with_its_name(parameter: str) -> None:
    with pytest.raises(ValidationError, match=f"has the parameter {parameter.partition('=')[0]}; known are "):
        WalletApiSettings(database_url=f"postgresql://ada@localhost/wallet?{parameter}")
