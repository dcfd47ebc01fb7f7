"""Measures each request, and leaves none without a reply."""

import asyncio
import time
from functools import cache

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common import problems
from common.http.metrics import http_request_duration_seconds
from common.http.problem_responses import problem_response

# `labels` takes longer than the observation.
_duration_of = cache(http_request_duration_seconds.labels)


class RequestMetrics:
    """ASGI middleware that measures each request by route, method and status."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and measure it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status: int | None = None

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note_status)
        except BaseException as error:
            if status is None:
                await _last_resort(error, scope, receive, note_status)
            raise
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "unknown")
            _duration_of(scope["method"], path, str(status or 500)).observe(time.perf_counter() - started)


async def _last_resort(error: BaseException, scope: Scope, receive: Receive, send: Send) -> None:
    """Reply where no handler has: the server itself would reply in plain text. It logs the error."""
    problem = (
        problems.Unavailable(
            "The server is shutting down. The outcome is unknown. Retry with the same idempotency key."
        )
        if isinstance(error, asyncio.CancelledError)
        else problems.InternalError("The outcome is unknown. The server's log has the cause.")
    )
    await problem_response(Request(scope), problem)(scope, receive, send)
