"""The JSON that goes out, and the models that document it."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from common.money import to_major
from history_consumer.projection import Direction, EventType
from history_consumer.read_queries import Page

JSON = "application/json"


class HistoryItem(BaseModel):
    """One event as one wallet saw it."""

    event_id: UUID
    event_type: EventType
    wallet_id: UUID
    wallet_version: int = Field(examples=[3])
    user_id: str = Field(examples=["ada"])
    transaction_id: UUID | None
    direction: Direction | None
    amount: str | None = Field(examples=["30.00"], description="Above zero; null where no money moved.")
    currency: str = Field(examples=["EUR"])
    balance_after: str = Field(examples=["20.00"])
    counterparty_wallet_id: UUID | None
    event_data: dict[str, Any] = Field(description="The event as it came through Kafka.")
    created_at: datetime = Field(description="When the wallet changed.")
    recorded_at: datetime = Field(description="When the history learned of it.")


class HistoryPage(BaseModel):
    """A page of a history."""

    items: list[HistoryItem]
    next_cursor: str | None
    complete: bool = Field(description="Whether no version is missing, of all that the history has heard of.")
    as_of_version: int | None = Field(
        examples=[3], description="Up to this version of the wallet nothing is missing; null for a user."
    )


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC, to the microsecond."""
    return moment.isoformat().replace("+00:00", "Z")


def item_json(row: RowMapping) -> dict[str, Any]:
    """Shape a row of `transaction_events`; `event_data` goes out byte for byte as it is stored."""
    return {
        "event_id": str(row["event_id"]),
        "event_type": row["event_type"],
        "wallet_id": str(row["wallet_id"]),
        "wallet_version": row["wallet_version"],
        "user_id": row["user_id"],
        "transaction_id": _text(row["transaction_id"]),
        "direction": row["direction"],
        "amount": None if row["amount_minor"] is None else to_major(row["amount_minor"], row["currency"]),
        "currency": row["currency"],
        "balance_after": to_major(row["balance_after_minor"], row["currency"]),
        "counterparty_wallet_id": _text(row["counterparty_wallet_id"]),
        "event_data": orjson.Fragment(row["event_data"]),
        "created_at": timestamp(row["created_at"]),
        "recorded_at": timestamp(row["recorded_at"]),
    }


def page_json(page: Page, limit: int, next_cursor: str | None) -> bytes:
    """Encode the first `limit` rows of the page."""
    body = {
        "items": [item_json(row) for row in page.rows[:limit]],
        "next_cursor": next_cursor,
        "complete": page.complete,
        "as_of_version": page.as_of_version,
    }
    return orjson.dumps(body)


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)
