"""Settings that more than one process reads. The environment variable has the setting's name in capitals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar, cast, get_args

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from common.kafka.connection import KafkaConnection, KafkaSecurity
from common.postgres.urls import UrlWithPassword, parse_url
from common.secrets import GIVEN_TWICE, Secret

Port = Annotated[int, Field(ge=0, le=65535)]


class OrderRule(NamedTuple):
    """A rule that one setting is less than another (or, with `or_equal`, no more than it)."""

    small: str
    large: str
    or_equal: bool = False

    def is_met(self, small: float, large: float) -> bool:
        """Whether the rule holds for these values."""
        return small < large or (self.or_equal and small == large)

    def violation_of(self, name: str, given: Mapping[str, Any]) -> str:
        """Return the message for the setting of that name, which is one of the two."""
        words = ("no more than", "no less than") if self.or_equal else ("less than", "more than")
        word, other = (words[0], self.large) if name == self.small else (words[1], self.small)
        return f"must be {word} {other.upper()}, which is {given[other]:g}"


class _Environment(EnvSettingsSource):
    """The environment. A secret is the value of its variable, or in the file that its variable with `_FILE` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        file = self.env_vars.get(f"{field_name}_file") if is_secret(field) else None
        if file is None:
            return value, key, is_complex
        return Path(file) if value is None else GIVEN_TWICE, key, False


def is_secret(field: FieldInfo) -> bool:
    """Whether a field of settings is a secret, which may come from a file."""
    kinds = get_args(field.annotation) or (field.annotation,)
    # An annotated type in a union is still annotated.
    return Secret in {getattr(kind, "__origin__", kind) for kind in kinds}


class Settings(BaseSettings):
    """The base of all settings: they are frozen and come from the environment alone; a blank value means unset.

    A field of type `Secret` comes from the variable of its name, or from the file that the variable with `_FILE` names.

    A class adds its own `order_rules` to those of its bases. A pair of values that breaks one is refused with a message
    that names both settings.
    """

    # A pydantic error would show a secret among its inputs.
    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    order_rules: ClassVar[tuple[OrderRule, ...]] = ()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources: the arguments and the environment."""
        return init_settings, _Environment(settings_cls)

    @field_validator("*")
    @classmethod
    def _obeys_order_rules(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        given: dict[str, Any] = {**info.data, name: value}
        for rule in (rule for kind in cls.__mro__ for rule in vars(kind).get("order_rules", ())):
            # The rule is checked when the second of its two fields is validated.
            small, large = given.get(rule.small), given.get(rule.large)
            if name in {rule.small, rule.large} and None not in {small, large} and not rule.is_met(small, large):
                raise ValueError(rule.violation_of(name, given))
        return value


class LogSettings(Settings):
    """How a process logs."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged."""
    log_format: Literal["json", "console"] = "json"
    """`json`: one JSON object per line; `console`: lines for people."""


def _postgresql_url(url: Secret) -> Secret:
    parse_url(url.read())
    return url


PostgresUrl = Annotated[Secret, AfterValidator(_postgresql_url)]


class WalletDatabaseSettings(Settings):
    """The wallet database, for processes that don't read the history."""

    database_url: PostgresUrl
    """The wallet database: `postgresql://user:password@host:5432/database?sslmode=verify-full`, see
    [connections](connections.md). Of several hosts, `postgresql://user:password@a:5432,b:5432/database`, one that can
    write is chosen."""
    database_password: Secret | None = None
    """The password for DATABASE_URL, if the URL has none."""

    @model_validator(mode="after")
    def _database_url_gets_its_password(self) -> Self:
        return _with_password(self, "database")


class HistoryDatabaseSettings(Settings):
    """The history database, for processes that don't read the wallets."""

    database_url: PostgresUrl | None = None
    """The history database, if HISTORY_DATABASE_URL is unset."""
    database_password: Secret | None = None
    """The password for DATABASE_URL, if the URL has none."""
    history_database_url: PostgresUrl = Field(cast("Secret", None), validate_default=False)
    """The history database: `postgresql://user:password@host:5432/database`. The default is DATABASE_URL."""
    history_database_password: Secret | None = None
    """The password for HISTORY_DATABASE_URL, if the URL has none."""

    @model_validator(mode="after")
    def _history_defaults_to_database_url(self) -> Self:
        if self.history_database_url is None and self.database_url is None:
            raise ValueError("HISTORY_DATABASE_URL or DATABASE_URL: one of them is required")
        _with_password(self, "database")
        _with_password(self, "history_database")
        if self.history_database_url is None:
            object.__setattr__(self, "history_database_url", self.database_url)
        return self


SettingsT = TypeVar("SettingsT", bound=Settings)


def _with_password(settings: SettingsT, database: str) -> SettingsT:
    """Put the password that a setting of its own has into the URL of that database.

    Raises:
        ValueError: the URL has a password too, or is unset.
    """
    url, password = getattr(settings, f"{database}_url"), getattr(settings, f"{database}_password")
    if password is None or isinstance(url, UrlWithPassword):
        return settings
    name = f"{database}_password".upper()
    if url is None:
        raise ValueError(f"{name}: {database.upper()}_URL is unset; set both, or neither")
    complete = UrlWithPassword(url, password)
    if "password" in parse_url(url.read()).parameters:
        raise ValueError(f"{name}: the URL has a password too; leave out one of them")
    object.__setattr__(settings, f"{database}_url", complete)
    return settings


class DatabaseSettings(HistoryDatabaseSettings):
    """Both databases, for commands that compare or migrate both."""

    database_url: PostgresUrl
    """The wallet database: `postgresql://user:password@host:5432/database`."""


class ConnectSettings(Settings):
    """How long a service waits for a connection to PostgreSQL."""

    database_connect_timeout_seconds: float = Field(5.0, gt=0, le=60)
    """The longest wait for a new connection, over all hosts."""


class PoolSettings(Settings):
    """How many connections to PostgreSQL an API process has."""

    database_pool_size: int = Field(10, ge=1, le=200)
    """The most connections of one process."""


class OperatorSettings(Settings):
    """The operator of `walletctl`."""

    operator: str = ""
    """The operator's name in the audit and the epochs. The default is the user's name, or `uid 1234` if it has none."""


class ApiSettings(PoolSettings):
    """The bounds of an API process: its requests and the connections of its clients."""

    requests_max: int = Field(256, ge=1, le=100_000)
    """The most requests under way in one process. One more is answered 503 at once."""
    request_deadline_seconds: float = Field(10.0, gt=0, le=300)
    """A request that has no reply by then is ended and answered 503."""
    connections_max: int = Field(1000, ge=1, le=100_000)
    """The most client connections of one process. The limit of open files (`ulimit -n`) may allow fewer. At the
    limit, the connection that has been idle longest is closed for a new one."""
    head_deadline_seconds: float = Field(10.0, gt=0, le=300)
    """How long the head of a request may take, from the accept of the connection or the previous reply; then 408."""
    body_deadline_seconds: float = Field(5.0, gt=0, le=300)
    """How long the body of a request may take after its head; then 408."""
    reply_stall_seconds: float = Field(10.0, gt=0, le=300)
    """The connection of a client that reads nothing of its reply for this long is closed."""
    database_connect_timeout_seconds: float = Field(0.8, gt=0, le=60)
    """The longest wait for a new connection. While the database is away, a client gets its 503 within a second."""

    # The waits end before the request's deadline, so that its reply tells the cause.
    order_rules: ClassVar[tuple[OrderRule, ...]] = (
        OrderRule("database_connect_timeout_seconds", "request_deadline_seconds"),
    )


class KafkaSettings(KafkaSecurity, Settings):
    """The brokers, the connection's security, and the topic."""

    kafka_bootstrap_servers: str = Field(min_length=1)
    """Brokers to connect to first: `host:9092,…`."""
    kafka_topic: str = Field("wallet_events", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """The topic of the events."""

    @property
    def kafka(self) -> KafkaConnection:
        """How a client connects to the brokers."""
        return KafkaConnection(self.kafka_bootstrap_servers, self)


class TopicSettings(KafkaSettings):
    """What the topic has to provide."""

    kafka_topic_retention_ms: int = Field(-1, ge=-1)
    """How long the topic keeps events, at least `OUTBOX_RETENTION_DAYS`. -1 means for ever, so that the history can be
    rebuilt from it."""


class PipelineSettings(DatabaseSettings, KafkaSettings):
    """The whole pipeline, for commands that compare or repair it: both databases and the topic."""

    consumer_group: str = Field("wallet-history", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """The consumer group whose rows in `processed_offsets` hold the history's position."""
