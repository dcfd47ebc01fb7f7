"""Middleware that finds the caller of each request before any route sees it."""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from common.access.caller import ANONYMOUS, Caller
from common.http.problem_responses import problem_response
from common.problems import Problem

Authenticate = Callable[[Request], Awaitable[Caller | Problem]]
"""Returns the caller of a request, or the problem for which the request is refused."""

OPEN_PATHS: Final = frozenset({"/live", "/ready"})


async def anonymous(_: Request) -> Caller:
    """Authenticate nobody: each caller may do everything."""
    return ANONYMOUS


class Authentication:
    """ASGI middleware that puts the caller into the scope as `caller`, or refuses the request.

    Args:
        app: the application.
        authenticate: finds the caller.
    """

    def __init__(self, app: ASGIApp, authenticate: Authenticate) -> None:
        self.app = app
        self._authenticate = authenticate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its caller, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            request = Request(scope)
            found = await self._authenticate(request)
            if isinstance(found, Problem):
                await problem_response(request, found)(scope, receive, send)
                return
            scope["caller"] = found
        await self.app(scope, receive, send)
