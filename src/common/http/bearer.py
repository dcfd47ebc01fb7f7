"""The Bearer token of a request."""

from collections.abc import Iterable
from typing import Final

_SCHEME: Final = b"bearer"


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the token of `Authorization: Bearer …`, or None (RFC 6750, section 2.1).

    Credentials of another scheme are none.
    """
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            return token.strip(b" ").decode("latin-1") if scheme.lower() == _SCHEME else None
    return None
