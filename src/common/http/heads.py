"""What HTTP says of every request's head, for all routes alike (RFC 9110)."""

from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from common.http.problem_responses import problem_response
from common.problems import BadRequest

Field = tuple[bytes, bytes]

SINGLE_FIELDS: Final = frozenset({b"idempotency-key", b"content-type", b"content-length"})
"""Fields of one value that a route reads: more than one line of them is refused."""
LIST_FIELDS: Final = frozenset({b"if-match", b"if-none-match", b"content-encoding"})
"""Fields that are lists and that a route reads: their lines are one list."""
_IGNORED_IF_REPEATED: Final = frozenset({b"traceparent"})


def one_line_each(fields: list[Field]) -> list[Field]:
    """Return the request's fields with one line for each that a route reads, so that the first line has all of it.

    Lines of a list are joined (RFC 9110, section 5.3). A repeated `traceparent` is dropped, as a broken one is (Trace
    Context, section 3.2.2).

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
    """ASGI middleware: a field has one line, and HEAD is a GET whose content the server leaves out (section 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on, or refuse it."""
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
        # A copy: the server looks at its own when it leaves the content out.
        as_get = {**scope, "method": "GET"}
        try:
            await self.app(as_get, receive, send)
        finally:
            scope["route"] = as_get.get("route")
