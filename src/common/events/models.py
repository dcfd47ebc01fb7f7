"""The events: a model each. They are the contract with consumers.

`tools/event_documents.py` makes the JSON Schemas and the AsyncAPI document in `docs/events/` from the models.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import Field

from common.events.kinds import Event, HoldEvent, MovementEvent, StatusEvent, TransactionEvent
from common.events.parts import Amount, Blocks, Sweep, VelocityLimit, WalletChange


class WalletCreated(Event):
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


@cache
def event_type_of(model: type[AnyEvent]) -> str:
    """Return the event type of a model."""
    return str(model.model_fields["event_type"].default)


def transaction_event(transaction_type: str, **fields: Any) -> TransactionEvent:
    """Return the event of a ledger transaction of this type."""
    model: Callable[..., TransactionEvent] = TRANSACTION_EVENTS[transaction_type]
    return model(**fields)
