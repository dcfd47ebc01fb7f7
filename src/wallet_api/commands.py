"""The commands of the use cases, validated for shape. Amounts are still text: only the wallet knows its currency.

`wallet_api/operations/` has the commands on wallets that exist: one module for each operation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar


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
        metadata: a JSON object, as the client sent it.
        claim: the idempotency key, if the client gave one.
        traceparent: W3C Trace Context, published with the event.
    """

    path: str
    metadata: Mapping[str, Any]
    # An operator's command, and one of this program itself, has neither.
    claim: IdempotencyClaim | None = None
    traceparent: str | None = None

    @property
    def operation_count(self) -> int:
        """How many operations it has."""
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateWallet(Command):
    """Create a wallet."""

    user_id: str
    currency: str
    external_id: str | None


CommandT = TypeVar("CommandT", bound=Command)
