"""Settings of the outbox relay."""

from typing import ClassVar, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

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
    """How long what is finished stays. Pending, parked and skipped rows stay for ever."""

    outbox_retention_days: float = Field(7.0, gt=0, le=36_500)
    """Outbox rows that were written and published this long ago leave: they can't be replayed any more."""
    idempotency_retention_days: float = Field(7.0, gt=0, le=36_500)
    """Idempotency keys this old leave: a request that repeats one is a new request."""


class RelaySettings(OutboxRetentionSettings, ConnectSettings, WalletDatabaseSettings, TopicSettings, LogSettings):
    """Each from the environment variable of its name in capitals."""

    relay_tasks: int = Field(3, ge=1, le=16)
    """Batches in flight at once, each with its own lanes, transaction and producer."""
    relay_lanes_per_batch: int = Field(16, ge=1, le=64)
    """Lanes that one batch takes at most, of 64, while the relay is behind; else it takes all that have something."""
    relay_batch_rows: int = Field(3000, ge=1, le=20_000)
    """Rows in one batch at most, shared evenly among its lanes."""
    relay_poll_first_seconds: float = Field(0.005, gt=0, le=60)
    """The first pause when nothing is pending; it doubles."""
    relay_poll_longest_seconds: float = Field(0.1, gt=0, le=60)
    """The longest pause when nothing is pending."""
    relay_gather_seconds: float = Field(0.04, ge=0, le=1)
    """The pause after a batch of many rows, while the relay isn't behind: fewer, larger batches."""
    relay_low_water_step: int = Field(20_000, ge=1)
    """Ids by which a lane's low water rises at least: each rise is a write, each id below it a dead index entry."""
    relay_delivery_timeout_seconds: float = Field(8.0, ge=1, le=10)
    """How long Kafka may take to acknowledge: with all that comes after it, less than the 15 seconds after which a hung
    relay loses its lanes."""
    relay_ops_host: str = "127.0.0.1"
    """Where `/live`, `/ready` and `/metrics` are served."""
    relay_ops_port: Port = 9401
    """The port of `/live`, `/ready` and `/metrics`; 0 takes a free one."""
    kafka_topic_create: bool = True
    """Whether a relay makes the topic if it is missing when the relay starts."""
    kafka_topic_partitions: int = Field(12, ge=1, le=10_000)
    """Partitions of a topic that a relay makes."""
    kafka_compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "lz4"
    """How batches of records are compressed."""

    order_rules: ClassVar[tuple[OrderRule, ...]] = (
        OrderRule("relay_poll_first_seconds", "relay_poll_longest_seconds", or_equal=True),
    )

    @field_validator("outbox_retention_days")
    @classmethod
    def _is_in_the_topic_as_long(cls, value: float, info: ValidationInfo) -> float:
        topic_ms = info.data.get("kafka_topic_retention_ms", -1)
        if topic_ms != -1 and value * _DAY_MS > topic_ms:
            raise ValueError(f"must be no more than KAFKA_TOPIC_RETENTION_MS, which is {topic_ms / _DAY_MS:g} days")
        return value
