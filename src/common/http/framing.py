"""Checks of a request's head that llhttp doesn't make."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from common.problems import BadRequest, HeadersTooLarge

Field = tuple[bytes, bytes]

HEAD_BYTES_MAX: Final = 32 * 1024
FIELDS_MAX: Final = 100
# RFC 3986, section 3.2.2: a name or an IPv4 address, or an IPv6 address in brackets; then a port.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")


def check_fields(version: str, fields: Sequence[Field]) -> None:
    """Check the version, Host, Transfer-Encoding (RFC 9112, sections 2.3, 3.2 and 6.1) and the number of fields.

    Raises:
        BadRequest: one of them is wrong.
        HeadersTooLarge: there are more than `FIELDS_MAX` fields.
    """
    if version not in {"1.1", "1.0"}:
        raise BadRequest("This server speaks HTTP/1.1.")
    if len(fields) > FIELDS_MAX:
        raise HeadersTooLarge(f"The request may have {FIELDS_MAX} header lines. Send fewer.")
    first = dict(fields)
    host, coding = first.get(b"host"), first.get(b"transfer-encoding")
    if len(first) < len(fields):
        host, coding = _all_of(b"host", fields), _all_of(b"transfer-encoding", fields)
    if version == "1.1" if host is None else not _is_host(host):
        raise BadRequest("Host: send one line, with a name or an address and an optional port.")
    if coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
        raise BadRequest("Transfer-Encoding: send chunked only, and only with HTTP/1.1.")


def check_size(target: bytes, fields: Sequence[Field]) -> None:
    """Check the size of the head.

    Raises:
        HeadersTooLarge: it is more than `HEAD_BYTES_MAX`.
    """
    if len(target) + sum(len(name) + len(value) + 4 for name, value in fields) > HEAD_BYTES_MAX:
        raise too_large()


def too_large() -> HeadersTooLarge:
    """Return the problem of a head that is over the limit."""
    return HeadersTooLarge(
        f"The request line and the headers may have {HEAD_BYTES_MAX} bytes together. Send fewer or shorter ones."
    )


def _all_of(wanted: bytes, fields: Sequence[Field]) -> bytes | None:
    """Return all lines of a field as one value. Several lines make neither a valid host nor a known coding."""
    values = [value for name, value in fields if name == wanted]
    return b", ".join(values) if values else None


@lru_cache(maxsize=1024)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None
