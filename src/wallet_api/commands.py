"""What is asked of the use cases, checked for shape. Amounts are still text: only the wallet knows its currency."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """A client's key and the SHA-256 of the request that it stands for."""

    key: str
    request_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What all commands have.

    Args:
        path: the request's path, for the problem document.
        claim: the idempotency key, if the client gave one.
        traceparent: W3C Trace Context, which travels with the event.
    """

    path: str
    claim: IdempotencyClaim | None
    traceparent: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateWallet(Command):
    """Make a wallet."""

    user_id: str
    currency: str
    external_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyCommand(Command):
    """Move money of one wallet.

    Args:
        wallet_id: the wallet that acts.
        amount: in major units, `"50.00"`.
        currency: what the client believes the wallet's currency to be, if it says so.
        if_match: versions of which the wallet must be at one; None means any.
    """

    wallet_id: UUID
    amount: str
    currency: str | None
    reference: str | None
    if_match: frozenset[int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fund(MoneyCommand):
    """Bring money in from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(MoneyCommand):
    """Send money to another wallet."""

    to_wallet_id: UUID


CommandT = TypeVar("CommandT", bound=Command)
MoneyT = TypeVar("MoneyT", bound=MoneyCommand)
