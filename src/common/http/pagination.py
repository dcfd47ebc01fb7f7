"""Keyset pages: opaque cursors that say where the last page ended, and of which list."""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import orjson

from common.problems import ValidationProblem

ValueT = TypeVar("ValueT")

PAGE_LIMIT_DEFAULT: Final = 50
PAGE_LIMIT_MAX: Final = 100

_DIGEST_BYTES: Final = 6
_NOT_OF_THIS_LIST: Final = "is not a next_cursor of this list with these filters and in this order"


def list_digest(*parts: object) -> bytes:
    """Return what tells one list from another: made of its route, owner, order and filters, but not of its limit."""
    return hashlib.sha256(orjson.dumps(parts)).digest()[:_DIGEST_BYTES]


def encode_cursor(keyset: Sequence[str | int], digest: bytes) -> str:
    """Turn the sort key of a page's last row into a cursor of the list with this `list_digest`."""
    return base64.urlsafe_b64encode(digest + orjson.dumps(list(keyset))).decode().rstrip("=")


def decode_cursor(cursor: str, kinds: Sequence[type], digest: bytes) -> list[Any]:
    """Turn a cursor back into its sort key, whose values are made by `kinds` (`int`, `UUID`, ...).

    Raises:
        ValidationProblem: not a cursor that the list with this `list_digest` gave out.
    """
    try:
        content = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        keyset = orjson.loads(content[_DIGEST_BYTES:])
        if content[:_DIGEST_BYTES] != digest or not isinstance(keyset, list):
            raise TypeError
        values = [kind(value) for kind, value in zip(kinds, keyset, strict=True)]
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise ValidationProblem.of("cursor", _NOT_OF_THIS_LIST) from error
    if any(isinstance(value, int) and abs(value) >= 2**63 for value in values):
        raise ValidationProblem.of("cursor", _NOT_OF_THIS_LIST)
    return values


def first_keyset(order: str, lowest: ValueT, highest: ValueT) -> ValueT:
    """Return the sort key from which the first page goes on, in the order `asc` or `desc`."""
    return lowest if order == "asc" else highest


def next_link(raw_path: bytes, query: Mapping[str, Sequence[str]], cursor: str) -> str:
    """Return a `Link` header (RFC 8288) to the next page.

    Args:
        raw_path: as it came, so that a slash that belongs to an id stays apart from one that doesn't.
        query: of this page; a list where a parameter is repeated.
        cursor: where the next page begins.
    """
    return f'<{quote(raw_path, safe="/%")}?{urlencode({**query, "cursor": cursor}, doseq=True)}>; rel="next"'
