"""The JSON of a wallet's limits, and the models that document it."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from common.events.parts import VelocityLimit
from common.money import to_major
from wallet_api.use_cases.limit_queries import velocity_limit
from wallet_api.velocity_limits import limit_json, use_json


class VelocityOut(VelocityLimit):
    """A velocity limit, what is used of it in the present window, and what remains."""

    used: str = Field(examples=["120.00"])
    remaining: str | None = Field(examples=["380.00"], description="Null: any amount may move.")
    used_count: int = Field(examples=[3])
    remaining_count: int | None = Field(examples=[7], description="Null: any number of movements.")
    resets_at: str | None = Field(
        examples=["2026-12-02T00:00:00Z"], description="When the next window begins. Null: it is one transaction."
    )


class LimitsOut(BaseModel):
    """The limits of a wallet."""

    wallet_id: UUID
    currency: str = Field(examples=["EUR"])
    version: int = Field(examples=[3])
    overdraft_limit: str = Field(examples=["100.00"], description="How much more than its own money may be spent.")
    balance_max: str | None = Field(examples=["10000.00"], description="The most that the wallet may have.")
    velocity: list[VelocityOut]


def limits_out_json(wallet_id: UUID, rows: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    """Return the JSON of a wallet's limits: rows of `GET_LIMITS`."""
    wallet = rows[0]
    currency, most_minor, now = wallet["currency"], wallet["balance_max_minor"], wallet["read_at"]
    limits = [velocity_limit(list(row.values())).at(now) for row in rows if row["id"] is not None]
    return {
        "wallet_id": str(wallet_id),
        "currency": currency,
        "version": wallet["version"],
        "overdraft_limit": to_major(wallet["overdraft_limit_minor"], currency),
        "balance_max": None if most_minor is None else to_major(most_minor, currency),
        "velocity": [{**limit_json(limit, currency), **use_json(limit, currency)} for limit in limits],
    }
