"""Settings of the wallet API."""

from typing import ClassVar

from pydantic import Field

from common.settings import ApiSettings, LogSettings, OrderRule, Port, WalletDatabaseSettings


class WalletApiSettings(ApiSettings, WalletDatabaseSettings, LogSettings):
    """Each from the environment variable of its name in capitals."""

    wallet_api_host: str = "127.0.0.1"
    """Where it listens."""
    wallet_api_port: Port = 8000
    """The port it listens on."""
    wallet_api_workers: int = Field(1, ge=1, le=64)
    """Processes behind the port; their metrics add up."""
    idempotency_key_required: bool = False
    """Whether a POST without `Idempotency-Key` is refused."""
    fund_attempts_max: int = Field(40, ge=1, le=1000)
    """How often a fund reads again after losing the race for the wallet's version."""
    batch_commands_max: int = Field(128, ge=1, le=4096)
    """Requests that may share one transaction."""
    queue_commands_max: int = Field(512, ge=1, le=100_000)
    """Requests of one kind that wait for the transaction before theirs; one more is answered 503 at once."""
    lock_timeout_seconds: float = Field(2.0, gt=0, le=60)
    """How long a request asks again for a wallet that others hold, or for the answer of the first one with its key."""
    batch_lock_timeout_seconds: float = Field(0.25, gt=0, le=60)
    """How long a transaction waits for a lock, before it is run again without those that want it."""
    statement_timeout_seconds: float = Field(5.0, gt=0, le=300)
    """PostgreSQL cancels a statement after this."""
    pool_timeout_seconds: float = Field(0.8, gt=0, le=60)
    """How long a request waits for a free connection."""

    order_rules: ClassVar[tuple[OrderRule, ...]] = (OrderRule("pool_timeout_seconds", "request_deadline_seconds"),)
