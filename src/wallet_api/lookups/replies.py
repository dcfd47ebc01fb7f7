"""The JSON of transactions, and the models that document it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from common.events import TRANSACTION_EVENTS
from common.moments import timestamp
from common.money import to_major
from wallet_api.lookups.queries import Legs


class LegOut(BaseModel):
    """One side of a transaction; `amount` is negative where money left."""

    wallet_id: UUID | None = Field(description="null: the world account, where money comes from outside.")
    counterparty_wallet_id: UUID | None = Field(description="null: the world account, or several wallets.")
    amount: str = Field(examples=["-30.00"])
    held: str = Field(examples=["0.00"], description="The change of what open holds reserve of the wallet's balance.")
    balance_after: str | None = Field(examples=["20.00"], description="null for the world account.")
    held_after: str | None = Field(examples=["0.00"], description="null for the world account.")
    version: int | None = Field(examples=[3], description="The wallet's; null for the world account.")


class TransactionOut(BaseModel):
    """A transaction, with those of its legs that the caller may read."""

    transaction_id: UUID
    type: str = Field(examples=["TRANSFER"], json_schema_extra={"enum": list(TRANSACTION_EVENTS)})
    currency: str = Field(examples=["EUR"])
    reference: str | None = Field(examples=["invoice 4711"])
    external_id: str | None = Field(
        examples=["order-4711"], description="The acting wallet's; null for callers that may not read that wallet."
    )
    metadata: dict[str, Any]
    created_at: datetime
    hold_id: UUID | None = Field(description="The hold that the transaction changes.")
    legs: list[LegOut]


class TransactionList(BaseModel):
    """A page of transactions."""

    items: list[TransactionOut]
    next_cursor: str | None


def transaction_json(legs: Legs) -> dict[str, Any]:
    """Return the JSON of a transaction. The world account's leg has neither reference nor metadata: a wallet's has."""
    leg = next(leg for leg in legs if leg["wallet_id"])
    return {
        "transaction_id": str(leg["transaction_id"]),
        "type": leg["type"],
        "currency": leg["currency"],
        "reference": leg["reference"],
        # Of the acting wallet's leg, which is the first.
        "external_id": leg["external_id"],
        "metadata": leg["metadata"],
        "created_at": timestamp(leg["created_at"]),
        "hold_id": _text(leg["hold_id"]),
        "legs": [_leg_json(leg) for leg in legs],
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
