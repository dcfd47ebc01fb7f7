"""Keyset pages: an opaque cursor says where the last page ended, and of which list."""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, urlencode

import orjson
from fastapi import Depends, Query, Request

from common.problems import ValidationProblem

PAGE_LIMIT_DEFAULT: Final = 50
PAGE_LIMIT_MAX: Final = 100

_DIGEST_BYTES: Final = 6
_NOT_OF_THIS_LIST: Final = "must be a next_cursor of this list with these filters and in this order"

Order = Literal["asc", "desc"]
_Cursor = Annotated[
    str | None,
    Query(
        description="`next_cursor` of the page before: of the same list, order and filters. `limit` may change.",
        max_length=1024,
    ),
]


def list_digest(*parts: object) -> bytes:
    """Return what tells one list from another: made of its route, owner, order and filters, but not of its limit."""
    return hashlib.sha256(orjson.dumps(parts)).digest()[:_DIGEST_BYTES]


def encode_cursor(keyset: Sequence[object], digest: bytes) -> str:
    """Turn the sort key of a page's last row into a cursor of the list with this `list_digest`."""
    # `str`, for the UUIDs as asyncpg makes them.
    return base64.urlsafe_b64encode(digest + orjson.dumps(list(keyset), default=str)).decode().rstrip("=")


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


def next_link(raw_path: bytes, query: Mapping[str, Sequence[str]], cursor: str) -> str:
    """Return a `Link` header (RFC 8288) to the next page.

    Args:
        raw_path: as the client sent it, so that a slash in an id stays apart from a slash between segments.
        query: of this page; a list where a parameter is repeated.
        cursor: where the next page begins.
    """
    return f'<{quote(raw_path, safe="/%")}?{urlencode({**query, "cursor": cursor}, doseq=True)}>; rel="next"'


@dataclass(frozen=True, slots=True)
class PageBounds:
    """Which page of a list: at most `limit` rows in the order, after the cursor if there is one."""

    limit: int
    cursor: str | None
    order: Order

    def start(self, digest: bytes, lowest: list[Any], highest: list[Any]) -> list[Any]:
        """Return the sort key after which the page begins.

        Args:
            digest: of the list.
            lowest: a sort key before every row's.
            highest: a sort key after every row's.

        Raises:
            ValidationProblem: the cursor isn't of this list.
        """
        if self.cursor:
            return decode_cursor(self.cursor, [type(value) for value in lowest], digest)
        return lowest if self.order == "asc" else highest

    def next_cursor(self, digest: bytes, rows: Sequence[Mapping[Any, Any]], names: Sequence[str]) -> str | None:
        """Return the next page's cursor; None on the last page.

        Args:
            digest: of the list.
            rows: of this page, and one more if there is a next page.
            names: of the columns of the sort key.
        """
        if len(rows) <= self.limit:
            return None
        last = rows[self.limit - 1]
        return encode_cursor([last[name] for name in names], digest)


@dataclass(frozen=True, slots=True)
class PageRequest(PageBounds):
    """The page that a request asks for."""

    request: Request

    def next(
        self,
        digest: bytes,
        rows: Sequence[Mapping[Any, Any]],
        names: Sequence[str],
        read_to: object = None,
    ) -> tuple[str | None, dict[str, str]]:
        """Return the next page's cursor, as `next_cursor` does, and the headers that link to it.

        `read_to` is the row's sort key up to which a search has read that did not fill the page and is not over.
        """
        cursor = self.next_cursor(digest, rows, names)
        if cursor is None and read_to is not None:
            cursor = encode_cursor([read_to], digest)
        if cursor is None:
            return None, {}
        query = {name: self.request.query_params.getlist(name) for name in self.request.query_params}
        return cursor, {"Link": next_link(self.request.scope["raw_path"], query, cursor)}


async def _page_request(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT_MAX)] = PAGE_LIMIT_DEFAULT,
    cursor: _Cursor = None,
    order: Annotated[Order, Query(description="`desc`: newest first")] = "desc",
) -> PageRequest:
    return PageRequest(limit, cursor, order, request)


PageOf = Annotated[PageRequest, Depends(_page_request)]
"""A page's query parameters; a FastAPI parameter."""
