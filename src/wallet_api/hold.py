"""A hold as the money rules need it: part of a wallet's balance, reserved for one receiver until it expires. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from common.moments import timestamp
from common.money import to_major


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold; money is in minor units of its currency.

    Attributes:
        wallet_id: the payer.
        to_wallet_id: the receiver; None is the currency's world account.
        amount_minor: what it reserves at first.
        capture_max_minor: what may be captured in all.
        captured_minor: what was captured.
        status: `open`, `captured`, `voided` or `expired`, as its row says.
        expires_at: by the database's clock. An open hold is overdue from then on.
        created_at: the time of the transaction that made it.
    """

    id: UUID
    wallet_id: UUID
    to_wallet_id: UUID | None
    currency: str
    amount_minor: int
    capture_max_minor: int
    captured_minor: int
    status: str
    expires_at: datetime
    created_at: datetime

    @property
    def remaining_minor(self) -> int:
        """What it reserves now."""
        return self.amount_minor - self.captured_minor if self.status == "open" else 0

    def is_overdue(self, now: datetime) -> bool:
        """Whether it is to be released, since it has expired."""
        return self.status == "open" and self.expires_at <= now

    def status_at(self, now: datetime) -> str:
        """Return its status at that time."""
        return "expired" if self.is_overdue(now) else self.status


def closed(hold: Hold, status: str) -> Hold:
    """Return the hold with this status, in which it reserves nothing."""
    return replace(hold, status=status)


def hold_json(hold: Hold, now: datetime) -> dict[str, Any]:
    """Return the hold as events, replies and the ledger's details have it.

    A hold that is overdue at that time is expired, and reserves nothing.
    """
    is_overdue = hold.is_overdue(now)
    return {
        "id": str(hold.id),
        "wallet_id": str(hold.wallet_id),
        "to_wallet_id": hold.to_wallet_id and str(hold.to_wallet_id),
        "amount": to_major(hold.amount_minor, hold.currency),
        "capture_max": to_major(hold.capture_max_minor, hold.currency),
        "captured": to_major(hold.captured_minor, hold.currency),
        "remaining": to_major(0 if is_overdue else hold.remaining_minor, hold.currency),
        "status": hold.status_at(now),
        "expires_at": timestamp(hold.expires_at),
    }
