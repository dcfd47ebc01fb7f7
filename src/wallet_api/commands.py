"""The commands of the use cases, validated for shape. Amounts are still text: only the wallet knows its currency."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from common.access.caller import Caller


class IdempotencyKey(NamedTuple):
    """A key of a client. It belongs to its caller: the same text of two callers makes two keys."""

    caller_id: str
    text: str


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """A client's key and the SHA-256 of its request."""

    key: IdempotencyKey
    request_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A request to a use case.

    Args:
        path: the request's path, for the problem document.
        claim: the idempotency key, if the client gave one.
        traceparent: W3C Trace Context, published with the event.
        metadata: a JSON object, as the client sent it.
    """

    path: str
    claim: IdempotencyClaim | None
    traceparent: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateWallet(Command):
    """Create a wallet."""

    user_id: str
    currency: str
    external_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyCommand(Command):
    """Move money into or out of one wallet.

    Args:
        caller: moves the wallets of its user only, if it is bound to one.
        wallet_id: the acting wallet.
        amount: in major units, `"50.00"`.
        currency: must be the wallet's, if the client sends one.
        reference: the client's own text.
        if_match: the wallet must be at one of these versions; None means any.
    """

    caller: Caller
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
