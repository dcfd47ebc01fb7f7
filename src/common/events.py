"""The events of the outbox. The models that encode them are the contract with consumers.

They are CloudEvents 1.0 in Kafka's binary mode: attributes are `ce_*` headers, and the value is the JSON of a model.
`tools/event_documents.py` makes the JSON Schemas and the AsyncAPI document in `docs/events/` from the models.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Final, Literal
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.fields import FieldInfo

from common.money import to_major

SCHEMA_VERSION: Final = 1
SOURCE: Final = "/wallet-api"

SOURCE_EPOCH_HEADER: Final = "ce_sourceepoch"
FIRST_SOURCE_EPOCH: Final = 1
"""The epoch of a database that was never restored, and of records without the header."""

Amount = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]+)?$", max_length=40, examples=["30.00"])]
Balance = Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$", max_length=40, examples=["20.00"])]
"""In major units; below zero (`-5.00`) where the wallet is overdrawn."""
HoldStatus = Literal["open", "captured", "voided", "expired"]
Blocks = Literal["in", "out", "all"]
"""What a frozen wallet refuses: money that moves in, money that moves out, or both."""
LimitDirection = Literal["in", "out"]
"""Which movements a velocity limit counts: into the wallet, or out of it."""
LimitWindow = Literal["transaction", "day", "week", "month"]
"""For how long a velocity limit counts: each transaction alone, or a day, an ISO week or a month, in UTC."""
CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["EUR"])]


class WalletChange(BaseModel):
    """One wallet that the event touched, as it was right after the event.

    `(wallet_id, version)` is unique over all events, and the versions of a wallet are 1, 2, 3, ... without gaps. So
    consumers can order events, and detect duplicates and gaps.

    `balance_after` is below zero where the wallet is overdrawn. `held_after` is what open holds reserve. It is null in
    a creation, and in the events of releases that had no holds.
    """

    model_config = ConfigDict(frozen=True)

    wallet_id: UUID
    user_id: str
    version: int = Field(ge=1)
    balance_after: Balance
    held_after: Amount | None = None
    direction: Literal["in", "out"] | None
    amount: Amount | None = Field(
        None,
        description="What moved into or out of this wallet, where that is not the event's amount.",
        exclude_if=lambda amount: amount is None,
    )


def wallet_change(
    wallet_id: UUID,
    user_id: str,
    version: int,
    currency: str,
    balance_minor: int,
    held_minor: int | None = None,
    *,
    moved_minor: int = 0,
    amount_minor: int = 0,
) -> dict[str, Any]:
    """Return what an entry of the ledger did to its wallet: the fields of a `WalletChange`.

    Args:
        wallet_id: whose entry it is.
        user_id: of the wallet.
        version: of the wallet, after the entry.
        currency: of the wallet.
        balance_minor: after the entry.
        held_minor: what open holds reserve, after the entry; None in a creation.
        moved_minor: what moved into the wallet or, below zero, out of it.
        amount_minor: the event's amount.
    """
    change = {
        # A str: orjson does not know the UUIDs of asyncpg.
        "wallet_id": str(wallet_id),
        "user_id": user_id,
        "version": version,
        "balance_after": to_major(balance_minor, currency),
        "held_after": None if held_minor is None else to_major(held_minor, currency),
        "direction": None if moved_minor == 0 else "in" if moved_minor > 0 else "out",
    }
    own_minor = abs(moved_minor)
    if own_minor not in {0, amount_minor}:
        change["amount"] = to_major(own_minor, currency)
    return change


class _Event(BaseModel):
    """The fields that all events have. Consumers ignore unknown fields."""

    model_config = ConfigDict(frozen=True)

    wallet_count: ClassVar[int] = 1

    schema_version: Literal[1] = SCHEMA_VERSION
    event_id: UUID
    created_at: AwareDatetime
    currency: CurrencyCode
    metadata: dict[str, Any]

    def encode(self) -> str:
        """Return the JSON value."""
        return self.model_dump_json()


class TransactionEvent(_Event):
    """The event of a transaction of the ledger. Each type of transaction has a model of its own.

    `transaction_type` is the type of its ledger entries.
    """

    transaction_type: ClassVar[str]

    event_type: str
    transaction_id: UUID
    reference: str | None
    external_id: str | None = Field(
        None,
        description="The id that the client of the first wallet gave the transaction, if it gave one.",
        exclude_if=lambda external_id: external_id is None,
    )
    wallets: Annotated[list[WalletChange], Field(min_length=1)]

    @classmethod
    def shared_details(cls, _details: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of its details the owner of a wallet that did not act may read: nothing, unless a type says so.

        Source: decision 0041.
        """
        return {}


class MovementEvent(TransactionEvent):
    """The event of a transaction in which money moves, is reserved or is released."""

    amount: Amount


class HoldState(BaseModel):
    """A hold as it was right after the event.

    `to_wallet_id` is the receiver; null is the world. `remaining` is what the hold still reserves.
    """

    model_config = ConfigDict(frozen=True)

    id: UUID
    wallet_id: UUID
    to_wallet_id: UUID | None
    amount: Amount
    capture_max: Amount
    captured: Amount
    remaining: Amount
    status: HoldStatus
    expires_at: AwareDatetime


class HoldEvent(MovementEvent):
    """The event of a hold's change. `amount` is what is reserved, captured or released."""

    hold: HoldState
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=1)]


class WalletCreated(_Event):
    """A wallet was created, with version 1 and a balance of zero."""

    event_type: Literal["WALLET_CREATED"] = "WALLET_CREATED"
    external_id: str | None
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=1)]


class WalletFunded(MovementEvent):
    """Money was added to a wallet from outside."""

    transaction_type = "FUND"

    event_type: Literal["WALLET_FUNDED"] = "WALLET_FUNDED"
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=1)]


class WalletWithdrawn(MovementEvent):
    """Money left a wallet and the system."""

    transaction_type = "WITHDRAW"

    event_type: Literal["WALLET_WITHDRAWN"] = "WALLET_WITHDRAWN"
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=1)]


class TransferDone(MovementEvent):
    """Money moved from the first wallet to the second."""

    transaction_type = "TRANSFER"

    event_type: Literal["TRANSFER_DONE"] = "TRANSFER_DONE"
    wallets: Annotated[list[WalletChange], Field(min_length=2, max_length=2)]


class SplitDone(MovementEvent):
    """Money moved from the first wallet to the others, to each its own amount."""

    transaction_type = "SPLIT"

    event_type: Literal["SPLIT_DONE"] = "SPLIT_DONE"
    wallets: Annotated[list[WalletChange], Field(min_length=2, max_length=21)]


class HoldCreated(HoldEvent):
    """Part of a wallet's balance was reserved."""

    transaction_type = "HOLD"

    event_type: Literal["HOLD_CREATED"] = "HOLD_CREATED"


class HoldCaptured(HoldEvent):
    """Money that was reserved moved from the first wallet to the second, or out of the system."""

    transaction_type = "CAPTURE"

    event_type: Literal["HOLD_CAPTURED"] = "HOLD_CAPTURED"
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=2)]

    @classmethod
    def shared_details(cls, details: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hold's id, which tells the receiver which captures belong together."""
        return {"hold": {"id": details["hold"]["id"]}}


class HoldVoided(HoldEvent):
    """A hold was given up, and what it reserved is available again."""

    transaction_type = "VOID"

    event_type: Literal["HOLD_VOIDED"] = "HOLD_VOIDED"
    reason: str | None


class HoldHasExpired(HoldEvent):
    """A hold has expired, and what it reserved is available again."""

    transaction_type = "EXPIRE"

    event_type: Literal["HOLD_EXPIRED"] = "HOLD_EXPIRED"


class MovementReversed(MovementEvent):
    """Money of an earlier transaction moved back, all of it or a part.

    The wallet that gives back is the first. If several give back, or the world account does, the wallet that gets back
    is the first.
    """

    transaction_type = "REVERSAL"

    event_type: Literal["MOVEMENT_REVERSED"] = "MOVEMENT_REVERSED"
    reverses_transaction_id: UUID
    reason: str = Field(examples=["goods returned"])
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=21)]

    @classmethod
    def shared_details(cls, details: Mapping[str, Any]) -> dict[str, Any]:
        """Return all: each wallet took part in the original, and its owner reads why money moved back."""
        return {name: details[name] for name in ("reverses_transaction_id", "reason")}


class StatusEvent(TransactionEvent):
    """The event of a change of a wallet's status. No money moves.

    `wallet_status` is the status after it.
    """

    wallet_status: ClassVar[Literal["active", "frozen", "closed"]]

    reason: str = Field(examples=["reported as stolen"])
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=1)]


class WalletFrozen(StatusEvent):
    """A wallet was frozen, or what it refuses while it is frozen was changed."""

    transaction_type = "FREEZE"
    wallet_status = "frozen"

    event_type: Literal["WALLET_FROZEN"] = "WALLET_FROZEN"
    blocks: Blocks


class WalletUnfrozen(StatusEvent):
    """A frozen wallet is active again."""

    transaction_type = "UNFREEZE"
    wallet_status = "active"

    event_type: Literal["WALLET_UNFROZEN"] = "WALLET_UNFROZEN"


class Sweep(BaseModel):
    """The transfer that emptied a wallet before it was closed."""

    model_config = ConfigDict(frozen=True)

    transaction_id: UUID
    to_wallet_id: UUID
    amount: Amount


class WalletClosed(StatusEvent):
    """An empty wallet was closed. `sweep` is the transfer that emptied it in the same database transaction, if any."""

    transaction_type = "CLOSE"
    wallet_status = "closed"

    event_type: Literal["WALLET_CLOSED"] = "WALLET_CLOSED"
    sweep: Sweep | None


class WalletReopened(StatusEvent):
    """A closed wallet is active again."""

    transaction_type = "REOPEN"
    wallet_status = "active"

    event_type: Literal["WALLET_REOPENED"] = "WALLET_REOPENED"


class VelocityLimit(BaseModel):
    """How much, or how often, may move into or out of a wallet in a window of time.

    `types` are the types of the ledger entries that count; null is all.
    """

    model_config = ConfigDict(frozen=True)

    id: str = Field(examples=["daily-out"])
    direction: LimitDirection
    types: list[str] | None = Field(examples=[["TRANSFER", "SPLIT"]])
    window: LimitWindow = Field(examples=["day"])
    amount: Amount | None
    count: int | None = Field(ge=1, examples=[10])


class WalletLimitsSet(TransactionEvent):
    """The limits of a wallet were set; they replace all that it had. No money moves."""

    transaction_type = "LIMITS"

    event_type: Literal["WALLET_LIMITS_SET"] = "WALLET_LIMITS_SET"
    overdraft_limit: Amount
    balance_max: Amount | None
    velocity: list[VelocityLimit]
    reason: str | None
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=1)]


AnyEvent = WalletCreated | TransactionEvent

TRANSACTION_EVENTS: Final[Mapping[str, type[TransactionEvent]]] = {
    model.transaction_type: model
    for model in (
        *(WalletFunded, WalletWithdrawn, TransferDone, SplitDone),
        *(HoldCreated, HoldCaptured, HoldVoided, HoldHasExpired),
        MovementReversed,
        *(WalletFrozen, WalletUnfrozen, WalletClosed, WalletReopened, WalletLimitsSet),
    )
}
"""The event model of each type of ledger transaction."""

EVENT_MODELS: Final[Sequence[type[AnyEvent]]] = (WalletCreated, *TRANSACTION_EVENTS.values())

_any_event: Any = reduce(or_, EVENT_MODELS)
_decoder: TypeAdapter[AnyEvent] = TypeAdapter(Annotated[_any_event, Field(discriminator="event_type")])


def transaction_event(transaction_type: str, **fields: Any) -> TransactionEvent:
    """Return the event of a ledger transaction of this type."""
    model: Callable[..., TransactionEvent] = TRANSACTION_EVENTS[transaction_type]
    return model(**fields)


def encode(
    model: type[AnyEvent],
    *,
    event_id: UUID,
    created_at: datetime,
    currency: str,
    metadata: Mapping[str, Any],
    **fields: object,
) -> str:
    """Return the JSON value of an event with these fields, which the outbox stores and the relay publishes unchanged.

    It is what the model would encode. The model does not check the fields again: that takes longer than the decision
    of a transfer, whose amounts and ids were checked already.
    """
    event = {
        "schema_version": SCHEMA_VERSION,
        "event_id": event_id,
        "created_at": created_at,
        "currency": currency,
        "metadata": metadata,
        "event_type": event_type_of(model),
        **fields,
    }
    return orjson.dumps(event, option=orjson.OPT_UTC_Z).decode()


def details_of(model: type[TransactionEvent]) -> Mapping[str, FieldInfo]:
    """Return the fields that an event has besides those of all movements: the ledger has them as details."""
    return {name: field for name, field in model.model_fields.items() if name not in MovementEvent.model_fields}


def shared_by_all(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an event, as JSON, the owner of a wallet that did not act may read; but all of its wallets."""
    both = {name: value for name, value in event.items() if name in _SHARED_FIELDS}
    model = _TRANSACTION_MODELS.get(event["event_type"])
    return both | model.shared_details(event) if model else both


@cache
def event_type_of(model: type[AnyEvent]) -> str:
    """Return the event type of a model."""
    return str(model.model_fields["event_type"].default)


_SHARED_FIELDS: Final = MovementEvent.model_fields.keys() - {"external_id"}
_TRANSACTION_MODELS: Final = {event_type_of(model): model for model in TRANSACTION_EVENTS.values()}


def decode(value: object) -> AnyEvent:
    """Return the event of a record's value, which was parsed from JSON already.

    Raises:
        pydantic.ValidationError: the type, the shape or the schema version is unknown.
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

    `sourceepoch` is an extension of this system. The `traceparent` extension has no prefix, as W3C Trace Context asks.

    Source: CloudEvents 1.0.2, Kafka protocol binding, section 3.2 (binary content mode).
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
