"""Headers of every reply, also of those that no route has made."""

from typing import Final

Fields = list[tuple[str, str]]

SECURITY_HEADERS: Final = (("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"))
"""No cache stores a reply: it may have a user's money in it (RFC 9111, section 5.2.2.5).

`If-None-Match` works all the same: a client that keeps a wallet itself sends it.
"""


def security_headers(strict_transport_security_seconds: int | None) -> Fields:
    """Return the headers, with `Strict-Transport-Security` (RFC 6797) for an API behind TLS."""
    fields = list(SECURITY_HEADERS)
    if strict_transport_security_seconds is not None:
        fields.append(("Strict-Transport-Security", f"max-age={strict_transport_security_seconds}"))
    return fields
