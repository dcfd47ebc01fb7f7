"""Settings of the history consumer and of the history's read API."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from common.access.settings import AccessSettings
from common.http.settings import HttpApiSettings, MetricsSettings
from common.settings import (
    ConnectSettings,
    HistoryDatabaseSettings,
    KafkaSettings,
    LogSettings,
    OrderRule,
    Port,
    Settings,
)


class DeadLetterRetentionSettings(Settings):
    """How long dead letters stay."""

    dead_letter_retention_days: float | None = Field(None, gt=0, le=36_500)
    """Dead letters this old are deleted, but no version conflict. Unset, all stay until they are retried."""


class ConsumerSettings(
    DeadLetterRetentionSettings, ConnectSettings, HistoryDatabaseSettings, KafkaSettings, MetricsSettings, LogSettings
):
    """Each setting is the environment variable of its name in capitals."""

    consumer_group: str = Field("wallet-history", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """The consumer group, which has its own positions. A new group reads the topic from its beginning."""
    consumer_group_protocol: Literal["classic", "consumer"] = "classic"
    """`consumer` is KIP-848, for brokers from 4.0 on. Stop all consumers of the group before you change it."""
    consumer_batch_records: int = Field(2000, ge=1, le=10_000)
    """How many records one transaction applies, at most."""
    consumer_poll_seconds: float = Field(0.25, gt=0, le=5)
    """How long one poll waits for a record. A stop waits for the poll."""
    consumer_session_timeout_seconds: float = Field(10.0, ge=1, le=300)
    """How long a consumer that died keeps its partitions. The least is the broker's `group.min.session.timeout.ms`,
    6 seconds by default. With the group protocol `consumer` the broker decides."""
    consumer_transaction_timeout_seconds: float = Field(20.0, gt=0, le=120)
    """How long one batch may take in the database before it is retried. A consumer that doesn't poll for 10 seconds
    more leaves the group. A join whose reply is lost is retried 3 seconds after that."""
    consumer_check_seconds: float = Field(5.0, gt=0, le=300)
    """How often an idle consumer checks the servers and the topic's id."""
    consumer_leave_seconds: float = Field(10.0, gt=0, le=60)
    """How long a consumer that stops may take to leave the group."""
    consumer_ops_host: str = "127.0.0.1"
    """The address of `/live`, `/ready` and `/metrics`."""
    consumer_ops_port: Port = 9402
    """Their port."""


class HistoryApiSettings(AccessSettings, HttpApiSettings, HistoryDatabaseSettings, LogSettings):
    """Each setting is the environment variable of its name in capitals."""

    host_setting: ClassVar[str] = "history_api_host"

    history_api_host: str = "127.0.0.1"
    """The address of the API."""
    history_api_port: Port = 8001
    """Its port."""
    history_api_workers: int = Field(1, ge=1, le=64)
    """How many processes serve it."""
    history_min_version_wait_seconds: float = Field(2.0, ge=0, le=30)
    """How long a request with `min_version` waits before the reply 503: less than REQUEST_DEADLINE_SECONDS."""
    history_min_version_poll_seconds: float = Field(0.02, ge=0.005, le=1)
    """How often the API reads the history meanwhile: once for all requests that wait."""
    history_statement_timeout_seconds: float = Field(5.0, gt=0, le=300)
    """PostgreSQL cancels a page's statement that takes longer; the reply is 503."""
    history_pool_timeout_seconds: float = Field(0.8, gt=0, le=60)
    """How long a request waits for a free connection."""

    order_rules: ClassVar[tuple[OrderRule, ...]] = (
        OrderRule("history_min_version_wait_seconds", "request_deadline_seconds"),
        OrderRule("history_pool_timeout_seconds", "request_deadline_seconds"),
    )

    @model_validator(mode="after")
    def _keys_are_in_the_wallet_database(self) -> Self:
        if self.accepts_keys and self.database_url is None:
            raise ValueError(f"DATABASE_URL: AUTH={self.auth} needs the wallet database, which has the API keys")
        return self
