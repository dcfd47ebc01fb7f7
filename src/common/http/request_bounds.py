"""How many requests a process accepts at once, and how long each may take."""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common import problems
from common.http.metrics import http_requests_refused
from common.http.probes import PROBES
from common.http.problem_responses import problem_response


class RequestBounds:
    """ASGI middleware that sheds load: it bounds the requests at once and the time of each; past a bound it sends 503.

    Load is shed, not queued: work for a client that has timed out is wasted. A transaction goes on without a request
    that was ended at its deadline; a retry with the same idempotency key returns its outcome. Probes are never refused.

    Args:
        app: the application.
        requests_max: requests in progress in this process at most.
        deadline_seconds: for one request, from its first byte to the first byte of its reply.
    """

    def __init__(self, app: ASGIApp, requests_max: int, deadline_seconds: float) -> None:
        self.app = app
        self._requests_max = requests_max
        self._deadline_seconds = deadline_seconds
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on within the bounds, or refuse it."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self.app(scope, receive, send)
        elif self._count >= self._requests_max:
            http_requests_refused.labels("overload").inc()
            await _unavailable("The server is at capacity. Retry later.", scope, receive, send)
        else:
            self._count += 1
            try:
                await self._within_deadline(scope, receive, send)
            finally:
                self._count -= 1

    async def _within_deadline(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        deadline = asyncio.timeout(self._deadline_seconds)

        async def note_start(message: Message) -> None:
            nonlocal started
            if not started and not deadline.expired():
                # How long a reply may take that has begun is up to its client: the connection bounds the stalls.
                deadline.reschedule(None)
            started = True
            await send(message)

        try:
            async with deadline:
                await self.app(scope, receive, note_start)
        except TimeoutError:
            if started:
                raise
            http_requests_refused.labels("deadline").inc()
            detail = "The request took too long. The outcome is unknown. Retry with the same idempotency key."
            await _unavailable(detail, scope, receive, send)


async def _unavailable(detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    response = problem_response(Request(scope), problems.Unavailable(detail))
    await response(scope, receive, send)
