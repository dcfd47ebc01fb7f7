"""The models that document the JSON of replies. They make none of it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, Field, create_model

from common.events.kinds import MovementEvent, details_of
from common.events.models import TRANSACTION_EVENTS
from common.events.parts import Blocks, HoldState, Sweep
from wallet_api.holds.replies import EXPANDED_HOLDS_MAX, HoldList


class WalletOut(BaseModel):
    """A wallet."""

    id: UUID
    user_id: str = Field(examples=["ada"])
    currency: str = Field(examples=["EUR"])
    balance: str = Field(examples=["50.00"], description="What is booked.")
    held: str = Field(examples=["15.00"], description="What open holds reserve.")
    available: str = Field(
        examples=["35.00"],
        description="What may be spent or reserved: the balance less `held`, and the overdraft limit.",
    )
    version: int = Field(examples=[2])
    status: Literal["active", "frozen", "closed"]
    blocks: Blocks | None = Field(description="What a frozen wallet refuses: money in, money out, or all. Else null.")
    external_id: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    holds: HoldList | None = Field(
        None,
        description=f"Only with `expand=holds`: the {EXPANDED_HOLDS_MAX} newest of the holds that make up `held`."
        " `next_cursor` goes on with `GET /wallets/{wallet_id}/holds?status=open`.",
    )


class _TransactionOut(BaseModel):
    transaction_id: UUID
    type: str = Field(examples=["TRANSFER"], json_schema_extra={"enum": list(TRANSACTION_EVENTS)})
    wallet_id: UUID
    counterparty_wallet_id: UUID | None
    currency: str = Field(examples=["EUR"])
    version: int = Field(examples=[3])
    reference: str | None
    external_id: str | None = Field(examples=["order-4711"])
    metadata: dict[str, Any]
    created_at: datetime


class _DoneOut(_TransactionOut):
    transaction_id: UUID | None = Field(description="null in a preview.")  # type: ignore[assignment]
    preview: Literal[True] | None = Field(None, description="Only in the reply to a preview: nothing was done.")
    balance: str = Field(examples=["20.00"])
    held: str = Field(examples=["0.00"])
    available: str = Field(examples=["20.00"])


class MoneyOut(_DoneOut):
    """A transaction in which money moved, was reserved or was released, and the acting wallet after it."""

    amount: str = Field(examples=["30.00"])


class ChangeOut(_DoneOut):
    """A transaction in which no money moved, and the acting wallet after it."""

    amount: None = None


class HoldInReply(HoldState):
    """A hold as it is right after the transaction. `to_wallet_id` is the receiver; null is the world."""

    id: UUID | None = Field(description="null in a preview of a new hold.")  # type: ignore[assignment]


class SweepInReply(Sweep):
    """The transfer that emptied a wallet before it was closed."""

    transaction_id: UUID | None = Field(description="null in a preview.")  # type: ignore[assignment]


_IN_REPLIES: Final[Mapping[Any, Any]] = {HoldState: HoldInReply, Sweep | None: SweepInReply | None}
"""The types of details whose ids a preview leaves out."""


class EntryOut(_TransactionOut):
    """One entry of a wallet's ledger.

    `amount` is negative where money left the wallet, and zero where none moved. `balance_after` is negative where the
    wallet was overdrawn. `held` is the change of what open holds reserve. `held_after` is null in entries of releases
    that had no holds. `external_id` is null in the entries of the wallets that did not act.
    """

    amount: str = Field(examples=["30.00"])
    balance_after: str = Field(examples=["20.00"])
    held: str = Field(examples=["0.00"])
    held_after: str | None = Field(examples=["0.00"])
    hold_id: UUID | None
    reverses: UUID | None = Field(description="The transaction that this one reverses.")


class WalletList(BaseModel):
    """A page of wallets."""

    items: list[WalletOut]
    next_cursor: str | None


class EntryList(BaseModel):
    """A page of a wallet's ledger."""

    items: list[EntryOut]
    next_cursor: str | None


def reply_model(transaction_type: str) -> type[BaseModel]:
    """Return the model of the reply to an operation: its transaction, and what the event says besides."""
    event = TRANSACTION_EVENTS[transaction_type]
    base: type[BaseModel] = MoneyOut if issubclass(event, MovementEvent) else ChangeOut
    details: dict[str, Any] = {
        name: (_IN_REPLIES.get(field.annotation, field.annotation), field) for name, field in details_of(event).items()
    }
    if not details:
        return base
    model: type[BaseModel] = create_model(f"{event.__name__}Out", __base__=base, __doc__=base.__doc__, **details)
    return model
