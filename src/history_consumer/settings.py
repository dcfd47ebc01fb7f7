"""Settings of the history consumer and of the history's read API."""

from typing import ClassVar, Literal

from pydantic import Field

from common.settings import (
    ApiSettings,
    Below,
    ConnectSettings,
    HistoryDatabaseSettings,
    KafkaSettings,
    LogSettings,
    Port,
    Settings,
)


class DeadLetterRetentionSettings(Settings):
    """How long what was put aside stays."""

    dead_letter_retention_days: float | None = Field(None, gt=0, le=36_500)
    """Dead letters this old leave, but for version conflicts; unset, they all stay until they are retried."""


class ConsumerSettings(
    DeadLetterRetentionSettings, ConnectSettings, HistoryDatabaseSettings, KafkaSettings, LogSettings
):
    """Each from the environment variable of its name in capitals."""

    consumer_group: str = Field("wallet-history", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """Names the consumer's rows in `processed_offsets`: another group starts from the topic's beginning."""
    consumer_group_protocol: Literal["classic", "consumer"] = "classic"
    """`consumer` is KIP-848, for brokers from 4.0 on. Stop all consumers of a group before you change it."""
    consumer_batch_records: int = Field(2000, ge=1, le=10_000)
    """Records in one transaction at most."""
    consumer_poll_seconds: float = Field(0.25, gt=0, le=5)
    """How long one poll waits for a record; a stop waits for it too."""
    consumer_session_timeout_seconds: float = Field(10.0, ge=1, le=300)
    """How long a consumer that died keeps its partitions. The broker's `group.min.session.timeout.ms`, 6 seconds by
    default, is the least; the broker decides under `consumer`."""
    consumer_transaction_timeout_seconds: float = Field(20.0, gt=0, le=120)
    """How long one batch may take in the database before it is tried again. A consumer that doesn't poll for 10 seconds
    longer than that leaves the group, and a join whose answer is lost is tried again 3 seconds after that."""
    consumer_check_seconds: float = Field(5.0, gt=0, le=300)
    """How often the servers and the topic's id are looked at while nothing else would."""
    consumer_leave_seconds: float = Field(10.0, gt=0, le=60)
    """How long leaving the group may take when stopping."""
    consumer_ops_host: str = "127.0.0.1"
    """Where `/live`, `/ready` and `/metrics` listen."""
    consumer_ops_port: Port = 9402
    """The port of these."""


class HistoryApiSettings(ApiSettings, HistoryDatabaseSettings, LogSettings):
    """Each from the environment variable of its name in capitals."""

    history_api_host: str = "127.0.0.1"
    """Where the API listens."""
    history_api_port: Port = 8001
    """Its port."""
    history_api_workers: int = Field(1, ge=1, le=64)
    """Processes that serve it."""
    history_min_version_wait_seconds: float = Field(2.0, ge=0, le=30)
    """How long `min_version` waits for the pipeline before it answers 503: less than REQUEST_DEADLINE_SECONDS."""
    history_min_version_poll_seconds: float = Field(0.02, ge=0.005, le=1)
    """How often it looks meanwhile: once for all the requests that wait."""
    history_statement_timeout_seconds: float = Field(5.0, gt=0, le=300)
    """The database cancels a page that takes longer; the answer is 503."""
    history_pool_timeout_seconds: float = Field(0.8, gt=0, le=60)
    """How long a request waits for a free connection."""

    below: ClassVar[tuple[Below, ...]] = (
        Below("history_min_version_wait_seconds", "request_deadline_seconds"),
        Below("history_pool_timeout_seconds", "request_deadline_seconds"),
    )
