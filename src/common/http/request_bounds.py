"""How many requests a process takes at once, and how long each may take."""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common import problems
from common.http.metrics import http_requests_refused
from common.http.probes import _PROBES
from common.http.problem_responses import problem_response


class RequestBounds:
    """ASGI middleware: so many requests at once at most, each within a deadline; past either the answer is 503.

    A queue that grows helps nobody: who waits longer than the client does works for nothing. A transaction goes
    on without a request that is cut off at its deadline; asking again with the same idempotency key tells how it
    ended. Probes are never refused.

    Args:
        app: the application.
        requests_max: requests under way in this process at most.
        deadline_seconds: for one request, from its first byte to the first of its reply.
    """

    def __init__(self, app: ASGIApp, requests_max: int, deadline_seconds: float) -> None:
        self.app = app
        self._requests_max = requests_max
        self._deadline_seconds = deadline_seconds
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on within the bounds, or refuse it."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self.app(scope, receive, send)
        elif self._count >= self._requests_max:
            http_requests_refused.labels("overload").inc()
            await _unavailable("The server has all that it can do at once. Ask again later.", scope, receive, send)
        else:
            self._count += 1
            try:
                await self._within_deadline(scope, receive, send)
            finally:
                self._count -= 1

    async def _within_deadline(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self._deadline_seconds):
                await self.app(scope, receive, note_start)
        except TimeoutError:
            if started:
                raise
            http_requests_refused.labels("deadline").inc()
            await _unavailable("The answer took too long. Ask again with the same key.", scope, receive, send)


async def _unavailable(detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    response = problem_response(Request(scope), problems.Unavailable(detail))
    await response(scope, receive, send)
