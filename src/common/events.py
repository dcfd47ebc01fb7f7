"""The events that leave through the outbox: the models that encode them are the contract.

CloudEvents 1.0 in Kafka's binary mode: attributes in `ce_*` headers, the value is the JSON of one of these
models. The JSON Schemas and the AsyncAPI document in `docs/events/` are made from them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

SCHEMA_VERSION: Final = 1
SOURCE: Final = "/wallet-api"

SOURCE_EPOCH_HEADER: Final = "ce_sourceepoch"
FIRST_SOURCE_EPOCH: Final = 1
"""Also that of records without the header."""

Amount = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]+)?$", max_length=40, examples=["30.00"])]
CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["EUR"])]


class WalletChange(BaseModel):
    """One wallet that the event touched, as it was right after.

    `(wallet_id, version)` is unique over all events, and a wallet's versions run 1, 2, 3, ... without holes:
    order, duplicates and gaps can be told from it.
    """

    model_config = ConfigDict(frozen=True)

    wallet_id: UUID
    user_id: str
    version: int = Field(ge=1)
    balance_after: Amount
    direction: Literal["in", "out"] | None


class _Event(BaseModel):
    """What all events have. Consumers ignore fields they don't know."""

    model_config = ConfigDict(frozen=True)

    wallet_count: ClassVar[int] = 1

    schema_version: Literal[1] = SCHEMA_VERSION
    event_id: UUID
    created_at: AwareDatetime
    currency: CurrencyCode
    metadata: dict[str, Any]

    def encode(self) -> str:
        """Return the JSON value that is stored in the outbox and produced as it stands."""
        return self.model_dump_json()


class _Movement(_Event):
    """An event in which money moved."""

    transaction_id: UUID
    amount: Amount
    reference: str | None


class WalletCreated(_Event):
    """A wallet was made; its version is 1 and its balance zero."""

    event_type: Literal["WALLET_CREATED"] = "WALLET_CREATED"
    external_id: str | None
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=1)]


class WalletFunded(_Movement):
    """Money came in from outside."""

    event_type: Literal["WALLET_FUNDED"] = "WALLET_FUNDED"
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=1)]


class TransferDone(_Movement):
    """Money went from the first wallet to the second."""

    event_type: Literal["TRANSFER_DONE"] = "TRANSFER_DONE"
    wallets: Annotated[list[WalletChange], Field(min_length=2, max_length=2)]


Event = Annotated[WalletCreated | WalletFunded | TransferDone, Field(discriminator="event_type")]

EVENT_MODELS: Final[Sequence[type[WalletCreated | WalletFunded | TransferDone]]] = (
    WalletCreated,
    WalletFunded,
    TransferDone,
)

_decoder: TypeAdapter[WalletCreated | WalletFunded | TransferDone] = TypeAdapter(Event)


def decode(value: object) -> WalletCreated | WalletFunded | TransferDone:
    """Turn a record's value, already read from JSON, into its event.

    Raises:
        pydantic.ValidationError: an unknown type, a wrong shape or a schema version from later.
    """
    return _decoder.validate_python(value)


_CONSTANT_HEADERS: Final = (
    ("ce_specversion", "1.0"),
    ("ce_source", SOURCE),
    ("content-type", "application/json"),
)


def cloud_event_headers(
    event_id: str,
    event_type: str,
    aggregate_id: str,
    created_at: datetime,
    source_epoch: int,
    extensions: Mapping[str, str],
) -> list[tuple[str, str | bytes | None]]:
    """Return the Kafka headers of one event.

    Source: CloudEvents 1.0.2, Kafka protocol binding, section 3.2 (binary content mode). `sourceepoch` is an
    extension of ours; the `traceparent` extension goes under its own name, as W3C Trace Context has it.
    """
    return [
        *_CONSTANT_HEADERS,
        ("ce_id", event_id),
        ("ce_type", event_type),
        ("ce_subject", aggregate_id),
        ("ce_time", created_at.isoformat()),
        (SOURCE_EPOCH_HEADER, str(source_epoch)),
        *extensions.items(),
    ]
