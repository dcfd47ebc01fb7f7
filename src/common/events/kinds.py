"""The fields that the events of a kind share. `models.py` has the events."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from common.events.parts import Amount, CurrencyCode, HoldState, WalletChange

SCHEMA_VERSION: Final = 1


class Event(BaseModel):
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


class TransactionEvent(Event):
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


class HoldEvent(MovementEvent):
    """The event of a hold's change. `amount` is what is reserved, captured or released."""

    hold: HoldState
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=1)]


class StatusEvent(TransactionEvent):
    """The event of a change of a wallet's status. No money moves.

    `wallet_status` is the status after it.
    """

    wallet_status: ClassVar[Literal["active", "frozen", "closed"]]

    reason: str = Field(examples=["reported as stolen"])
    wallets: Annotated[list[WalletChange], Field(min_length=1, max_length=1)]


def details_of(model: type[TransactionEvent]) -> Mapping[str, FieldInfo]:
    """Return the fields that an event has besides those of all movements: the ledger has them as details."""
    return {name: field for name, field in model.model_fields.items() if name not in MovementEvent.model_fields}
