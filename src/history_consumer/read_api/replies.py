"""The JSON of replies, and the models that document it."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from common.events.encoding import shared_by_all
from common.moments import timestamp
from common.money import to_major
from history_consumer.projection import Direction, EventType
from history_consumer.read_api.page_queries import Page

JSON = "application/json"


class HistoryItem(BaseModel):
    """One event, from one wallet's side."""

    event_id: UUID
    event_type: EventType
    wallet_id: UUID
    wallet_version: int = Field(examples=[3])
    user_id: str = Field(examples=["ada"])
    transaction_id: UUID | None
    direction: Direction | None
    amount: str | None = Field(examples=["30.00"], description="Positive; null where no money moved.")
    currency: str = Field(examples=["EUR"])
    balance_after: str = Field(examples=["20.00"])
    counterparty_wallet_id: UUID | None
    event_data: dict[str, Any] = Field(
        description="The event as it was published, but with the wallet and the amount of this item only."
        " If the wallet is not the one that acted, `external_id` is left out, and `hold` has the hold's `id` only."
    )
    created_at: datetime = Field(description="When the wallet changed.")
    recorded_at: datetime = Field(description="When the history recorded the event.")


class HistoryPage(BaseModel):
    """A page of a history."""

    items: list[HistoryItem]
    next_cursor: str | None
    complete: bool = Field(
        description="Whether no version is missing below the highest version of each wallet in the history."
        " Events that have not arrived yet do not count."
    )
    as_of_version: int | None = Field(
        examples=[3],
        description="Up to this version of the wallet the history is final: no version is missing; null for a user.",
    )
    event_count: int = Field(
        examples=[3],
        description="How many events of this wallet or user the history has, whatever the filters, when the page was"
        " read. If it is the same on the first and the last page, the pages have all items.",
    )


def item_json(row: RowMapping) -> dict[str, Any]:
    """Return the JSON of a row of `transaction_events` for the owner of its wallet."""
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
        "event_data": _own_side(row["event_data"], row["wallet_id"]),
        "created_at": timestamp(row["created_at"]),
        "recorded_at": timestamp(row["recorded_at"]),
    }


def _own_side(event_data: str, wallet_id: UUID) -> orjson.Fragment:
    """Return the event as it is for the owner of this wallet: without the other wallets and their amounts.

    The history stores all of it, for the audit.
    """
    event = orjson.loads(event_data)
    own = next(change for change in event["wallets"] if UUID(change["wallet_id"]) == wallet_id)
    is_acting = own is event["wallets"][0]
    event["wallets"] = [own]
    # The event's own amount would tell a receiver of a split what the other receivers got.
    if own.get("amount"):
        event["amount"] = own["amount"]
    if not is_acting:
        event = shared_by_all(event)
    try:
        return orjson.Fragment(orjson.dumps(event))
    except orjson.JSONEncodeError:
        # More than 254 levels, which the wallet API never writes: only members without levels can be encoded.
        flat = {name: value for name, value in event.items() if not isinstance(value, dict | list)}
        return orjson.Fragment(orjson.dumps({**flat, "wallets": event["wallets"]}))


def page_json(page: Page, limit: int, next_cursor: str | None) -> bytes:
    """Encode the first `limit` rows of the page."""
    body = {
        "items": [item_json(row) for row in page.rows[:limit]],
        "next_cursor": next_cursor,
        "complete": page.complete,
        "as_of_version": page.as_of_version,
        "event_count": page.event_count,
    }
    return orjson.dumps(body)


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)
