"""What events are made of: the types of their fields, and the objects in them."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from common.money import to_major

Amount = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]+)?$", max_length=40, examples=["30.00"])]
Balance = Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$", max_length=40, examples=["20.00"])]
"""In major units; below zero (`-5.00`) where the wallet is overdrawn."""
HoldStatus = Literal["open", "captured", "voided", "expired"]
Blocks = Literal["in", "out", "all"]
"""What a frozen wallet refuses: money that moves in, money that moves out, or both."""
LimitDirection = Literal["in", "out"]
"""Which movements a velocity limit counts: into the wallet, or out of it."""
LimitWindow = Literal["transaction", "day", "week", "month"]
"""For how long a velocity limit counts: each transaction alone, or a day, an ISO week or a month, in UTC."""
CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["EUR"])]


class WalletChange(BaseModel):
    """One wallet that the event touched, as it was right after the event.

    `(wallet_id, version)` is unique over all events, and the versions of a wallet are 1, 2, 3, ... without gaps. So
    consumers can order events, and detect duplicates and gaps.

    `balance_after` is below zero where the wallet is overdrawn. `held_after` is what open holds reserve. It is null in
    a creation, and in the events of releases that had no holds.
    """

    model_config = ConfigDict(frozen=True)

    wallet_id: UUID
    user_id: str
    version: int = Field(ge=1)
    balance_after: Balance
    held_after: Amount | None = None
    direction: Literal["in", "out"] | None
    amount: Amount | None = Field(
        None,
        description="What moved into or out of this wallet, where that is not the event's amount.",
        exclude_if=lambda amount: amount is None,
    )


def wallet_change(
    wallet_id: UUID,
    user_id: str,
    version: int,
    currency: str,
    balance_minor: int,
    held_minor: int | None = None,
    *,
    moved_minor: int = 0,
    amount_minor: int = 0,
) -> dict[str, Any]:
    """Return what an entry of the ledger did to its wallet: the fields of a `WalletChange`.

    Args:
        wallet_id: whose entry it is.
        user_id: of the wallet.
        version: of the wallet, after the entry.
        currency: of the wallet.
        balance_minor: after the entry.
        held_minor: what open holds reserve, after the entry; None in a creation.
        moved_minor: what moved into the wallet or, below zero, out of it.
        amount_minor: the event's amount.
    """
    change = {
        # A str: orjson does not know the UUIDs of asyncpg.
        "wallet_id": str(wallet_id),
        "user_id": user_id,
        "version": version,
        "balance_after": to_major(balance_minor, currency),
        "held_after": None if held_minor is None else to_major(held_minor, currency),
        "direction": None if moved_minor == 0 else "in" if moved_minor > 0 else "out",
    }
    own_minor = abs(moved_minor)
    if own_minor not in {0, amount_minor}:
        change["amount"] = to_major(own_minor, currency)
    return change


class HoldState(BaseModel):
    """A hold as it was right after the event.

    `to_wallet_id` is the receiver; null is the world. `remaining` is what the hold still reserves.
    """

    model_config = ConfigDict(frozen=True)

    id: UUID
    wallet_id: UUID
    to_wallet_id: UUID | None
    amount: Amount
    capture_max: Amount
    captured: Amount
    remaining: Amount
    status: HoldStatus
    expires_at: AwareDatetime


class Sweep(BaseModel):
    """The transfer that emptied a wallet before it was closed."""

    model_config = ConfigDict(frozen=True)

    transaction_id: UUID
    to_wallet_id: UUID
    amount: Amount


class VelocityLimit(BaseModel):
    """How much, or how often, may move into or out of a wallet in a window of time.

    `types` are the types of the ledger entries that count; null is all.
    """

    model_config = ConfigDict(frozen=True)

    id: str = Field(examples=["daily-out"])
    direction: LimitDirection
    types: list[str] | None = Field(examples=[["TRANSFER", "SPLIT"]])
    window: LimitWindow = Field(examples=["day"])
    amount: Amount | None
    count: int | None = Field(ge=1, examples=[10])
