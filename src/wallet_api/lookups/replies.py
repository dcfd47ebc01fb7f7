"""The JSON of transactions, and the models that document it."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from common.events.models import TRANSACTION_EVENTS
from common.moments import timestamp
from common.money import to_major
from wallet_api.lookups.queries import Legs
from wallet_api.operations.original import REVERSIBLE

_ACTING_ENTRY: Final = 1


class LegOut(BaseModel):
    """One side of a transaction; `amount` is negative where money left."""

    wallet_id: UUID | None = Field(description="null: the world account, where money comes from outside.")
    counterparty_wallet_id: UUID | None = Field(description="null: the world account, or several wallets.")
    amount: str = Field(examples=["-30.00"])
    held: str = Field(examples=["0.00"], description="The change of what open holds reserve of the wallet's balance.")
    balance_after: str | None = Field(examples=["20.00"], description="null for the world account.")
    held_after: str | None = Field(examples=["0.00"], description="null for the world account.")
    version: int | None = Field(examples=[3], description="The wallet's; null for the world account.")


class ReversalOut(BaseModel):
    """A transaction that reversed another one, in part or whole."""

    transaction_id: UUID
    amount: str = Field(examples=["10.00"], description="What it moved back, on the caller's side.")


class TransactionOut(BaseModel):
    """A transaction, with those of its legs that the caller may read."""

    transaction_id: UUID
    type: str = Field(examples=["TRANSFER"], json_schema_extra={"enum": list(TRANSACTION_EVENTS)})
    currency: str = Field(examples=["EUR"])
    reference: str | None = Field(examples=["invoice 4711"])
    external_id: str | None = Field(
        examples=["order-4711"], description="The acting wallet's; null for callers that may not read that wallet."
    )
    batch_id: UUID | None = Field(
        description="The batch request that it was a part of; null for callers that may not read the acting wallet."
    )
    metadata: dict[str, Any]
    created_at: datetime
    details: dict[str, Any] | None = Field(
        description="What its event says besides. For callers that may not read the acting wallet, `hold` has only the"
        " hold's `id`.",
        examples=[{"reason": "stolen"}],
    )
    hold_id: UUID | None = Field(description="The hold that the transaction changes.")
    reverses: UUID | None = Field(description="The transaction that this one reverses.")
    reversed_by: list[ReversalOut] = Field(description="Its reversals that moved money of the caller's wallets.")
    reversed: str | None = Field(
        examples=["10.00"],
        description="What was moved back of what the payer paid, or of what the caller's wallets received if the caller"
        " may not read the payer; null where nothing can be reversed.",
    )
    reversible: str | None = Field(examples=["20.00"], description="What is left of that.")
    legs: list[LegOut]


class TransactionList(BaseModel):
    """A page of transactions."""

    items: list[TransactionOut]
    next_cursor: str | None = Field(
        description="null on the last page. In a search by metadata, a page before may have fewer items than `limit`,"
        " or none."
    )


def transaction_json(legs: Legs) -> dict[str, Any]:
    """Return the JSON of a transaction. The world account's leg has neither reference nor metadata: a wallet's has."""
    leg = next(leg for leg in legs if leg["wallet_id"])
    return {
        "transaction_id": str(leg["transaction_id"]),
        "type": leg["type"],
        "currency": leg["currency"],
        "reference": leg["reference"],
        # Both of the acting wallet's leg, which is the first.
        "external_id": leg["external_id"],
        "batch_id": _text(leg["batch_id"]),
        "metadata": leg["metadata"],
        "created_at": timestamp(leg["created_at"]),
        "details": _details(legs),
        "hold_id": _text(leg["hold_id"]),
        "reverses": _text(leg["reverses_transaction_id"]),
        **_reversals_json(legs),
        "legs": [_leg_json(leg) for leg in legs],
    }


def _details(legs: Legs) -> dict[str, Any] | None:
    """Return the details that the caller may read: all, if it may read the leg of the acting wallet."""
    first = legs[0]
    details: dict[str, Any] | None = first["details"]
    if details is None or first["entry"] == _ACTING_ENTRY:
        return details
    model = TRANSACTION_EVENTS.get(first["type"])
    return (model and model.shared_details(details)) or None


def _reversals_json(legs: Legs) -> Mapping[str, Any]:
    """Return what the legs tell of reversals: the payer's has all, those of receivers have their own parts."""
    if legs[0]["type"] not in REVERSIBLE:
        return {"reversed_by": [], "reversed": None, "reversible": None}
    currency = legs[0]["currency"]
    side = [leg for leg in legs if leg["amount_minor"] < 0] or legs
    amounts_minor: Counter[UUID] = Counter()
    for leg in side:
        for id_, amount_minor in zip(leg["reversal_ids"] or (), leg["reversal_amounts"] or (), strict=True):
            amounts_minor[id_] += abs(amount_minor)
    reversed_minor = amounts_minor.total()
    moved_minor = sum(abs(leg["amount_minor"]) for leg in side)
    return {
        "reversed_by": [
            {"transaction_id": str(id_), "amount": to_major(amount_minor, currency)}
            for id_, amount_minor in amounts_minor.items()
        ],
        "reversed": to_major(reversed_minor, currency),
        "reversible": to_major(moved_minor - reversed_minor, currency),
    }


def _leg_json(leg: RowMapping) -> Mapping[str, Any]:
    balance_minor, held_minor = leg["balance_after_minor"], leg["held_after_minor"]
    return {
        "wallet_id": _text(leg["wallet_id"]),
        "counterparty_wallet_id": _text(leg["counterparty_wallet_id"]),
        "amount": to_major(leg["amount_minor"], leg["currency"]),
        "held": to_major(leg["held_minor"], leg["currency"]),
        "balance_after": None if balance_minor is None else to_major(balance_minor, leg["currency"]),
        "held_after": None if held_minor is None else to_major(held_minor, leg["currency"]),
        "version": leg["wallet_version"],
    }


def _text(id_: UUID | None) -> str | None:
    return None if id_ is None else str(id_)
