"""Settings that more than one process reads, each from the environment variable of its name in capitals."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Base of every process's settings: frozen, from the environment alone, blank means unset."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)


class LogSettings(Settings):
    """How a process logs."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"


class DatabaseSettings(Settings):
    """Where PostgreSQL is and how long a process waits for it.

    `history_database_url` may name another database; left out, the history lives in the first one.
    """

    database_url: str
    history_database_url: str = ""
    database_pool_size: int = Field(10, ge=1, le=200)
    database_connect_timeout_seconds: float = Field(5.0, gt=0, le=60)

    @field_validator("database_url", "history_database_url")
    @classmethod
    def _is_postgresql(cls, value: str) -> str:
        if value:
            asyncpg_url(value)
        return value

    @model_validator(mode="after")
    def _history_defaults_to_the_first(self) -> Self:
        if not self.history_database_url:
            object.__setattr__(self, "history_database_url", self.database_url)
        return self


class KafkaSettings(Settings):
    """Where the broker is and what the topic is called."""

    kafka_bootstrap_servers: str = Field(min_length=1)
    kafka_topic: str = Field("wallet_events", pattern=r"^[A-Za-z0-9._-]{1,249}$")


def asyncpg_url(url: str) -> URL:
    """Turn a `postgresql://` URL into the one SQLAlchemy opens with asyncpg.

    Raises:
        ValueError: it isn't a PostgreSQL URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError("must look like postgresql://user:password@host:5432/database") from error
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError("must start with postgresql://")
    return parsed.set(drivername="postgresql+asyncpg")
