"""Middleware that finds the caller of each request before any route sees it."""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from common.access.caller import Caller
from common.access.metrics import auth_failures
from common.http.bearer import bearer_token
from common.http.docs_pages import DOCS_PATHS, OPENAPI_PATH
from common.http.probes import PROBES
from common.http.problem_responses import problem_response
from common.http.rate_limits import RefusalLimit
from common.problems import Problem, Unauthorized, Unavailable
from common.rate_limited_logs import RateLimitedLog

log = RateLimitedLog(structlog.get_logger())

Authenticate = Callable[[str | None], Awaitable[Caller | Problem]]
"""Returns the caller by the Bearer token of a request, if it has one, or the problem for which it is refused."""

OPEN_PATHS: Final = frozenset({*PROBES, *DOCS_PATHS, OPENAPI_PATH})
"""Paths without a caller. `/metrics` has a guard of its own."""


class Authentication:
    """ASGI middleware that puts the caller into the scope as `caller`, or refuses the request.

    Args:
        app: the application.
        authenticate: finds the caller.
        limit: slows down addresses whose credentials are refused.
    """

    def __init__(self, app: ASGIApp, authenticate: Authenticate, limit: RefusalLimit) -> None:
        self.app = app
        self._authenticate = authenticate
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its caller, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            token = bearer_token(scope["headers"])
            found = self._limit.refusal(scope, token) or await self._authenticate(token)
            if isinstance(found, Problem):
                await self._refuse(found, token, scope, receive, send)
                return
            self._limit.note_valid(token)
            scope["caller"] = found
        await self.app(scope, receive, send)

    async def _refuse(self, problem: Problem, token: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request without valid credentials. Each refusal passes here."""
        if isinstance(problem, Unauthorized):
            self._limit.note_refused(scope, token)
            auth_failures.labels(problem.reason).inc()
            if problem.key_id is not None:
                log.warning("api_key_refused", error=problem, reason=problem.reason, key_id=problem.key_id)
        elif isinstance(problem, Unavailable):
            auth_failures.labels("unavailable").inc()
        await problem_response(Request(scope), problem)(scope, receive, send)
