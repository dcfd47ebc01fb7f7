"""The JSON of balances and statements, and the models that document it."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, Field

from common.moments import timestamp
from common.money import to_major
from wallet_api.replies import entry_json
from wallet_api.reply_models import EntryOut
from wallet_api.statements.balances import Balance, BalanceAt, Pages, Period


class VersionBalanceOut(BaseModel):
    """A wallet's balance at one of its versions."""

    balance: str = Field(examples=["50.00"], description="What was booked.")
    held: str = Field(examples=["0.00"], description="What open holds reserved.")
    available: str = Field(
        examples=["50.00"], description="`balance` less `held`, and the overdraft limit of that time."
    )
    version: int = Field(examples=[2], description="0: the wallet did not exist yet.")


class BalanceOut(VersionBalanceOut):
    """A wallet's balance at a time or a version."""

    wallet_id: UUID
    currency: str = Field(examples=["EUR"])
    as_of: datetime = Field(description="The time asked for, or that of the version.")
    final: bool = Field(description="Whether the wallet can get no other version up to `as_of`. If false, ask again.")


class StatementOut(BaseModel):
    """A wallet's statement: the opening balance and the amounts of the entries sum to the closing balance."""

    wallet_id: UUID
    currency: str = Field(examples=["EUR"])
    start: datetime = Field(alias="from", description="The first moment of the period.")
    end: datetime = Field(alias="to", description="The first moment after the period.")
    opening: VersionBalanceOut
    closing: VersionBalanceOut
    final: bool = Field(description="Whether the statement can't change any more. If false, ask again.")
    entries: list[EntryOut]


def balance_json(wallet_id: UUID, found: BalanceAt) -> dict[str, Any]:
    """Return the JSON of a balance."""
    return {
        "wallet_id": str(wallet_id),
        "currency": found.balance.currency,
        **_version_json(found.balance),
        "as_of": timestamp(found.as_of),
        "final": found.is_final,
    }


def _version_json(balance: Balance) -> dict[str, Any]:
    return {
        "balance": to_major(balance.balance_minor, balance.currency),
        "held": to_major(balance.held_minor, balance.currency),
        "available": to_major(balance.available_minor, balance.currency),
        "version": balance.version,
    }


async def statement_json(period: Period, pages: Pages) -> AsyncIterator[bytes]:
    """Yield the JSON of a statement, in parts."""
    head = {
        "wallet_id": str(period.wallet_id),
        "currency": period.closing.currency,
        "from": timestamp(period.start),
        "to": timestamp(period.end),
        "opening": _version_json(period.opening),
        "closing": _version_json(period.closing),
        "final": period.is_final,
    }
    yield orjson.dumps(head)[:-1] + b',"entries":['
    separator = b""
    async for rows in pages:
        # Without the brackets of the list.
        yield separator + orjson.dumps([entry_json(row) for row in rows])[1:-1]
        separator = b","
    yield b"]}"
