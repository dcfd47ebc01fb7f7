"""Settings of the outbox relay."""

from typing import ClassVar, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from common.http.settings import MetricsSettings
from common.settings import (
    ConnectSettings,
    LogSettings,
    OrderRule,
    Port,
    Settings,
    TopicSettings,
    WalletDatabaseSettings,
)

_DAY_MS: Final = 86_400_000


class OutboxRetentionSettings(Settings):
    """How long published rows and idempotency keys are kept. Pending, parked and skipped rows are kept for ever."""

    outbox_retention_days: float = Field(7.0, gt=0, le=36_500)
    """Days after which a published outbox row is deleted; after that it can't be replayed."""
    idempotency_retention_days: float = Field(7.0, gt=0, le=36_500)
    """Days after which an idempotency key is deleted; after that a request with the same key is a new request."""


class RelaySettings(
    OutboxRetentionSettings, ConnectSettings, WalletDatabaseSettings, TopicSettings, MetricsSettings, LogSettings
):
    """The relay's settings, each from the environment variable of its name in capitals."""

    relay_tasks: int = Field(3, ge=1, le=16)
    """Batches in flight at the same time, each with its own lanes, transaction and producer."""
    relay_lanes_per_batch: int = Field(16, ge=1, le=64)
    """The most lanes, of 64, that one batch claims while the relay is behind. Else it claims all with pending rows."""
    relay_batch_rows: int = Field(3000, ge=1, le=20_000)
    """The most rows in one batch, shared evenly among its lanes."""
    relay_poll_first_seconds: float = Field(0.005, gt=0, le=60)
    """The first pause when no row is pending; each next pause is twice as long."""
    relay_poll_longest_seconds: float = Field(0.1, gt=0, le=60)
    """The longest pause when no row is pending."""
    relay_gather_seconds: float = Field(0.04, ge=0, le=1)
    """The pause after a batch while many rows come and the relay isn't behind: batches are fewer and larger."""
    relay_low_water_step: int = Field(20_000, ge=1)
    """Ids by which a lane's low water rises at least. A rise costs a write, and spares reads of dead index entries."""
    relay_delivery_timeout_seconds: float = Field(8.0, ge=1, le=10)
    """Seconds within which Kafka must acknowledge a batch. With its margins, less than the 15 seconds after which a
    hung relay loses its lanes."""
    relay_ops_host: str = "127.0.0.1"
    """The address of `/live`, `/ready` and `/metrics`."""
    relay_ops_port: Port = 9401
    """The port of `/live`, `/ready` and `/metrics`; 0 is any free port."""
    kafka_topic_create: bool = True
    """Whether a relay creates the topic if it is missing when the relay starts."""
    kafka_topic_partitions: int = Field(12, ge=1, le=10_000)
    """The number of partitions of a topic that a relay creates."""
    kafka_compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "lz4"
    """The compression of batches of records."""

    order_rules: ClassVar[tuple[OrderRule, ...]] = (
        OrderRule("relay_poll_first_seconds", "relay_poll_longest_seconds", or_equal=True),
    )

    @field_validator("outbox_retention_days")
    @classmethod
    def _topic_keeps_events_as_long(cls, value: float, info: ValidationInfo) -> float:
        topic_ms = info.data.get("kafka_topic_retention_ms", -1)
        if topic_ms != -1 and value * _DAY_MS > topic_ms:
            raise ValueError(f"must be no more than KAFKA_TOPIC_RETENTION_MS, which is {topic_ms / _DAY_MS:g} days")
        return value
