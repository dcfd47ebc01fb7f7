"""Keyset pages: opaque cursors that say where the last page ended."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import orjson

from common.problems import ValidationProblem

ValueT = TypeVar("ValueT")

PAGE_LIMIT_DEFAULT: Final = 50
PAGE_LIMIT_MAX: Final = 100


def encode_cursor(keyset: Sequence[str | int]) -> str:
    """Turn the sort key of a page's last row into a cursor."""
    return base64.urlsafe_b64encode(orjson.dumps(list(keyset))).decode().rstrip("=")


def decode_cursor(cursor: str, kinds: Sequence[type]) -> list[Any]:
    """Turn a cursor back into its sort key, whose values are made by `kinds` (`int`, `UUID`, ...).

    Raises:
        ValidationProblem: not a cursor that this list gave out.
    """
    try:
        keyset = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(keyset, list):
            raise TypeError
        values = [kind(value) for kind, value in zip(kinds, keyset, strict=True)]
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise ValidationProblem.of("cursor", "is not a next_cursor of this list") from error
    if any(isinstance(value, int) and abs(value) >= 2**63 for value in values):
        raise ValidationProblem.of("cursor", "is not a next_cursor of this list")
    return values


def first_keyset(order: str, lowest: ValueT, highest: ValueT) -> ValueT:
    """Return the sort key from which the first page goes on, in the order `asc` or `desc`."""
    return lowest if order == "asc" else highest


def next_link(path: str, query: Mapping[str, Sequence[str]], cursor: str) -> str:
    """Return a `Link` header (RFC 8288) to the next page.

    Args:
        path: decoded; whatever a header can't hold is percent-encoded.
        query: of this page; a list where a parameter is repeated.
        cursor: where the next page begins.
    """
    return f'<{quote(path)}?{urlencode({**query, "cursor": cursor}, doseq=True)}>; rel="next"'
