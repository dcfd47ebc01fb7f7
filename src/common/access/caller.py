"""The caller of an API, and what the caller may do."""

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from common.problems import Forbidden

WALLETS_READ: Final = "wallets:read"
WALLETS_WRITE: Final = "wallets:write"
FUNDS_WRITE: Final = "funds:write"
HISTORY_READ: Final = "history:read"
OPS_READ: Final = "ops:read"
OPS_WRITE: Final = "ops:write"
SCOPES: Final = (WALLETS_READ, WALLETS_WRITE, FUNDS_WRITE, HISTORY_READ, OPS_READ, OPS_WRITE)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller.

    Attributes:
        id: the caller's own, the same after a rotation of its credentials. Idempotency keys belong to it.
        user_id: the user whose wallets alone the caller sees and moves; None means the wallets of all users.
        scopes: what the caller may do, of `SCOPES`.
    """

    id: str
    user_id: str | None
    scopes: frozenset[str]

    def owns(self, user_id: str) -> bool:
        """Whether the caller may see and move the wallets of this user."""
        return self.user_id is None or self.user_id == user_id


ANONYMOUS: Final = Caller("", None, frozenset(SCOPES))
"""Every caller, where authentication is off."""


def caller_of(request: Request) -> Caller:
    """Return the caller of the request: `Authentication` has found it, and the route has checked its scope."""
    caller: Caller = request.scope["caller"]
    return caller


def check_user(caller: Caller, user_id: str) -> None:
    """Refuse a request for a user by a caller that is bound to another one.

    Raises:
        Forbidden: the reply depends on the request and the caller only, and so tells nothing of the other user.
    """
    if not caller.owns(user_id):
        raise Forbidden("user_id: the caller is bound to another user. Name that user, or use other credentials.")
