"""Rules of HTTP for the heads of all requests (RFC 9110)."""

from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from common.http.problem_responses import problem_response
from common.problems import BadRequest

Field = tuple[bytes, bytes]

SINGLE_FIELDS: Final = frozenset({b"authorization", b"idempotency-key", b"content-type", b"content-length"})
"""Fields with one value that a route reads. A request with more than one line of such a field is refused."""
LIST_FIELDS: Final = frozenset({b"if-match", b"if-none-match", b"content-encoding"})
"""Fields with a list that a route reads. Their lines are joined to one list."""
_IGNORED_IF_REPEATED: Final = frozenset({b"traceparent"})


def one_line_each(fields: list[Field]) -> list[Field]:
    """Return the request's fields with one line for each field that a route reads.

    The lines of a list are joined (RFC 9110, section 5.3). A repeated `traceparent` is dropped, like a malformed one
    (Trace Context, section 3.2.2).

    Raises:
        BadRequest: a field of one value has more than one line (RFC 9110, section 5.3).
    """
    if len(dict(fields)) == len(fields):
        return fields
    repeated = {name for name, count in Counter(name for name, _ in fields).items() if count > 1}
    if refused := repeated & SINGLE_FIELDS:
        name = min(refused).decode().title()
        raise BadRequest(f"{name}: send it once.", errors=[{"field": name, "message": "must have one value"}])
    joined = repeated & (LIST_FIELDS | _IGNORED_IF_REPEATED)
    lists = [(name, b", ".join(_values(name, fields))) for name in joined & LIST_FIELDS]
    return [field for field in fields if field[0] not in joined] + lists


def _values(wanted: bytes, fields: Iterable[Field]) -> list[bytes]:
    return [value for name, value in fields if name == wanted]


class RequestHeads:
    """ASGI middleware: each field gets one line, and HEAD is a GET without the content (RFC 9110, section 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request to the application, or refuse it."""
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        try:
            scope["headers"] = one_line_each(scope["headers"])
        except BadRequest as problem:
            return problem_response(Request(scope), problem)(scope, receive, send)
        if scope["method"] == "HEAD":
            return self._get(scope, receive, send)
        return self.app(scope, receive, send)

    async def _get(self, scope: Scope, receive: Receive, send: Send) -> None:
        # In a copy, since the server reads the method in its own scope to leave out the content.
        as_get = {**scope, "method": "GET"}
        try:
            await self.app(as_get, receive, send)
        finally:
            scope["route"] = as_get.get("route")
