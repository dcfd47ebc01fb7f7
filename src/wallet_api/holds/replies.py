"""The JSON of holds, and the models that document it."""

from dataclasses import fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from common.events.parts import HoldState, HoldStatus
from common.http.pagination import Order, list_digest
from common.moments import timestamp
from wallet_api.hold import Hold, hold_json

EXPANDED_HOLDS_MAX: Final = 100
"""The most holds that a wallet is read with."""


class HoldOut(HoldState):
    """A hold, with the transactions that changed it, the oldest first. Once it has expired its status says so."""

    currency: str = Field(examples=["EUR"])
    reference: str | None
    external_id: str | None = Field(examples=["order-4711"])
    metadata: dict[str, Any]
    transaction_ids: list[UUID]
    created_at: datetime
    updated_at: datetime


class HoldList(BaseModel):
    """A page of a wallet's holds."""

    items: list[HoldOut]
    next_cursor: str | None


def hold_out_json(row: RowMapping) -> dict[str, Any]:
    """Return the JSON of a row of `holds/queries.py`: a hold, as of the time at which it was read."""
    hold = Hold(*(row[field.name] for field in fields(Hold)))
    return {
        **hold_json(hold, row["read_at"]),
        "currency": hold.currency,
        "reference": row["reference"],
        "external_id": row["external_id"],
        "metadata": row["metadata"],
        "transaction_ids": [str(id_) for id_ in row["transaction_ids"]],
        "created_at": timestamp(row["created_at"]),
        "updated_at": timestamp(row["updated_at"]),
    }


def holds_digest(wallet_id: UUID, status: HoldStatus | None, order: Order) -> bytes:
    """Return the digest of a list of a wallet's holds."""
    return list_digest("holds", wallet_id, status, order)
