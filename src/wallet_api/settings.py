"""Settings of the wallet API."""

from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from common.access.caller import OPS_WRITE
from common.access.settings import AccessSettings
from common.http.settings import HttpApiSettings, items_of
from common.settings import LogSettings, OrderRule, Port, WalletDatabaseSettings
from wallet_api.operations.catalogue import ALL_OPERATIONS

_OPERATORS: Final = [operation.name for operation in ALL_OPERATIONS if operation.scope == OPS_WRITE]


def _owner_operations(text: str) -> str:
    if unknown := set(items_of(text)) - set(_OPERATORS):
        raise ValueError(f"{min(unknown)!r} is none of the operators' operations: {', '.join(_OPERATORS)}")
    return text


class WalletApiSettings(AccessSettings, HttpApiSettings, WalletDatabaseSettings, LogSettings):
    """Each setting comes from the environment variable of its name in capitals."""

    host_setting: ClassVar[str] = "wallet_api_host"

    wallet_api_host: str = "127.0.0.1"
    """The address that the API listens on."""
    wallet_api_port: Port = 8000
    """The port that the API listens on."""
    wallet_api_workers: int = Field(1, ge=1, le=64)
    """Processes that share the port; `/metrics` sums over them."""
    idempotency_key_required: bool = False
    """Whether a POST or PUT that has neither `Idempotency-Key` nor an `external_id` is refused."""
    owner_operations: Annotated[str, AfterValidator(_owner_operations)] = ""
    """The operators' operations that users may do with their own wallets: `freeze,close`. They then need the scope
    `wallets:write` in place of `ops:write`. A user's freeze never lifts one of the operators; an `unfreeze` does. With
    `reverse`, a user may give back what its own wallet received."""
    database_pool_size: int = Field(10, ge=1, le=200)
    """The most connections of one process that read. Creations and operations have one more each."""
    batch_commands_max: int = Field(128, ge=1, le=4096)
    """Requests that may share one transaction."""
    queue_commands_max: int = Field(512, ge=1, le=100_000)
    """Requests of one kind in the queue for a transaction; one more is answered 503 at once."""
    queue_batch_operations_max: int = Field(10_000, ge=100, le=1_000_000)
    """Operations of batch requests in the queue for a transaction. A batch request that finds no room is answered 503
    at once."""
    version_attempts_max: int = Field(40, ge=1, le=1000)
    """How often a request is tried whose wallet changes between the read and the write; then 409 version-conflict."""
    busy_retry_seconds: float = Field(2.0, gt=0, le=60)
    """How long a request is retried whose wallet or idempotency key another transaction has locked; then 409
    wallet-busy or idempotency-key-in-flight."""
    batch_lock_timeout_seconds: float = Field(0.25, gt=0, le=60)
    """PostgreSQL's `lock_timeout`: after it a batch is run again without the requests whose wallets are locked."""
    statement_timeout_seconds: float = Field(5.0, gt=0, le=300)
    """PostgreSQL's `statement_timeout`: it cancels a statement that takes longer; the answer is 503."""
    transaction_timeout_seconds: float = Field(5.0, gt=0, le=300)
    """A transaction that takes longer, its retries included, is abandoned; the answer is 503. PostgreSQL ends the
    session of a transaction that goes on for 5 seconds longer: it may be of a process that hangs."""
    hold_release_seconds: float = Field(1.0, gt=0, le=86_400)
    """How often the process releases holds that have expired. They can't be captured after their time in any case."""
    pool_timeout_seconds: float = Field(0.8, gt=0, le=60)
    """How long a request waits for a free connection."""

    order_rules: ClassVar[tuple[OrderRule, ...]] = (OrderRule("pool_timeout_seconds", "request_deadline_seconds"),)
