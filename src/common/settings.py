"""Settings that more than one process reads, each from the environment variable of its name in capitals."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.postgres.urls import asyncpg_url

Port = Annotated[int, Field(ge=0, le=65535)]


class Below(NamedTuple):
    """One setting must be less than another, or no more than it, since it is part of it."""

    small: str
    large: str
    or_equal: bool = False

    def fits(self, small: float, large: float) -> bool:
        """Whether these values may stand beside each other."""
        return small < large or (self.or_equal and small == large)

    def said_of(self, name: str, given: Mapping[str, Any]) -> str:
        """Return what is wrong with the setting of that name, which is one of the two."""
        words = ("no more than", "no less than") if self.or_equal else ("less than", "more than")
        word, other = (words[0], self.large) if name == self.small else (words[1], self.small)
        return f"must be {word} {other.upper()}, which is {given[other]:g}"


class Settings(BaseSettings):
    """Base of every process's settings: frozen, from the environment alone, blank means unset.

    What depends on what is said in `below`, of each class beside its own fields: a pair that doesn't fit is refused
    with a line that names both.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, use_attribute_docstrings=True)

    below: ClassVar[tuple[Below, ...]] = ()

    @field_validator("*")
    @classmethod
    def _fits_the_others(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        given: dict[str, Any] = {**info.data, name: value}
        for rule in (rule for kind in cls.__mro__ for rule in vars(kind).get("below", ())):
            # Whichever of the two comes second is looked at beside the first.
            small, large = given.get(rule.small), given.get(rule.large)
            if name in {rule.small, rule.large} and None not in {small, large} and not rule.fits(small, large):
                raise ValueError(rule.said_of(name, given))
        return value


class LogSettings(Settings):
    """How a process logs."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    log_format: Literal["json", "console"] = "json"
    """A JSON object a line for machines, or plain lines for eyes."""


def _postgresql_url(value: str) -> str:
    if value:
        asyncpg_url(value)
    return value


PostgresUrl = Annotated[str, AfterValidator(_postgresql_url)]


class WalletDatabaseSettings(Settings):
    """Where the wallets are: all that a process needs which doesn't read the history."""

    database_url: PostgresUrl
    """Where the wallets are: `postgresql://user:password@host:5432/database`. Several hosts:
    `postgresql://user:password@/database?host=a:5432&host=b:5432`; one that can write is taken."""


class HistoryDatabaseSettings(Settings):
    """Where the history is: all that a process needs which doesn't read the wallets."""

    database_url: PostgresUrl = ""
    """Where the history is, if HISTORY_DATABASE_URL is unset."""
    history_database_url: PostgresUrl = ""
    """Where the history is: `postgresql://user:password@host:5432/database`. Unset, DATABASE_URL says it."""

    @model_validator(mode="after")
    def _history_defaults_to_the_first(self) -> Self:
        if not (self.history_database_url or self.database_url):
            raise ValueError("HISTORY_DATABASE_URL or DATABASE_URL: one of them is required")
        if not self.history_database_url:
            object.__setattr__(self, "history_database_url", self.database_url)
        return self


class DatabaseSettings(HistoryDatabaseSettings):
    """Where both are, for commands that compare or move both."""

    database_url: PostgresUrl
    """Where the wallets are: `postgresql://user:password@host:5432/database`."""


class ConnectSettings(Settings):
    """How long a service waits for PostgreSQL."""

    database_connect_timeout_seconds: float = Field(5.0, gt=0, le=60)
    """How long to wait for a new connection, of all hosts together."""


class PoolSettings(Settings):
    """How many connections a process of an API has."""

    database_pool_size: int = Field(10, ge=1, le=200)
    """Connections of one process at most."""


class OperatorSettings(Settings):
    """Who works with `walletctl`."""

    operator: str = ""
    """The name that the audit and the epochs get. Unset, it is the user's name, or `uid 1234` where that has none."""


class ApiSettings(PoolSettings):
    """What bounds the requests of an API process."""

    requests_max: int = Field(256, ge=1, le=100_000)
    """Requests under way in one process at most; one more is answered 503 at once."""
    request_deadline_seconds: float = Field(10.0, gt=0, le=300)
    """A request without an answer by then is cut off and answered 503."""
    connections_max: int = Field(1000, ge=1, le=100_000)
    """Connections of clients to one process at most, or as many as its limit of open files (`ulimit -n`) leaves, if
    that is less. At the limit the one that has been idle longest is closed for a new one."""
    head_deadline_seconds: float = Field(10.0, gt=0, le=300)
    """How long the head of a request may take, from the connection's accept or the reply before it; then 408."""
    body_deadline_seconds: float = Field(5.0, gt=0, le=300)
    """How long the body of a request may take after its head; then 408."""
    reply_stall_seconds: float = Field(10.0, gt=0, le=300)
    """A client that reads nothing of its reply for this long is cut off."""
    database_connect_timeout_seconds: float = Field(0.8, gt=0, le=60)
    """How long to wait for a new connection; with the database away a client hears so within a second."""

    # A request's waits are over before its time is, so that it is answered with what went wrong.
    below: ClassVar[tuple[Below, ...]] = (Below("database_connect_timeout_seconds", "request_deadline_seconds"),)


class KafkaSettings(Settings):
    """Where the broker is and what the topic is called."""

    kafka_bootstrap_servers: str = Field(min_length=1)
    """Brokers to ask first: `host:9092,…`."""
    kafka_topic: str = Field("wallet_events", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """The topic of the events."""


class TopicSettings(KafkaSettings):
    """What the topic must be like."""

    kafka_topic_retention_ms: int = Field(-1, ge=-1)
    """How long the topic keeps events, at least `OUTBOX_RETENTION_DAYS`; -1 is for ever, so that a history can be
    built anew from it."""


class PipelineSettings(DatabaseSettings, KafkaSettings):
    """Where the whole pipeline is, for commands that compare or mend all of it: both databases and the topic."""

    consumer_group: str = Field("wallet-history", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """Whose rows in `processed_offsets` say how far the history has come."""
