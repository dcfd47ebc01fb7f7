"""What both APIs and the workers' ops ports share: problem documents, probes, metrics, servers."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import fastapi
import structlog
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess
from pydantic import AfterValidator
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common import problems
from common.database import DRIVER_ERRORS, QUERY_CANCELED, explained, is_unreachable, sqlstate, unavailable
from common.http_server import BackgroundServer, background_server
from common.logs import BoundedLog
from common.metrics import http_request_duration_seconds, http_requests_refused
from common.problems import MEDIA_TYPE, Problem
from common.text import check_user_id

log = BoundedLog(structlog.get_logger())

Checks = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns each dependency and `"ok"`, or what is wrong with it."""

WARNING: Final = "warning: "
"""A check that begins so says what is wrong with something that works."""

_PROBES: Final = ("/live", "/ready", "/metrics")

_BY_STATUS: Final[Mapping[int, type[Problem]]] = {
    404: problems.RouteNotFound,
    405: problems.MethodNotAllowed,
    413: problems.ContentTooLarge,
    415: problems.UnsupportedMediaType,
    422: problems.ValidationProblem,
    503: problems.Unavailable,
}


def path_of(request: Request) -> str:
    """Return the request's path, percent-encoded: a problem's `instance` is a URI reference."""
    return quote(request.scope["path"])


def path_user_id(
    request: Request,
    user_id: Annotated[
        str, fastapi.Path(description="1 to 64 visible characters, percent-encoded."), AfterValidator(check_user_id)
    ],
) -> str:
    """Return the user id in the path; a FastAPI dependency.

    Raises:
        RouteNotFound: a slash too many. One that belongs to an id is percent-encoded where it stands at an end.
    """
    if request.scope["path"].endswith("\n") or b"//" in (raw := request.scope["raw_path"]) or raw.endswith(b"/"):
        raise problems.RouteNotFound("user_id: a slash at its end is written %2F.")
    return user_id


def problem_response(request: Request, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return the problem document as a response."""
    return Response(
        problem.body(path_of(request)),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers={**problem.headers(), **(headers or {})},
    )


async def on_problem(request: Request, error: Exception) -> Response:
    """Answer a problem that a route raised."""
    assert isinstance(error, Problem)
    return problem_response(request, error)


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """Answer what FastAPI refused in a path, a query or a header."""
    assert isinstance(error, RequestValidationError)
    return problem_response(request, problems.ValidationProblem.of_errors(error.errors()))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the router refused: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code, problems.BadRequest)
    headers = dict(error.headers or {})
    if "Allow" in headers:
        methods = {method.strip() for method in headers["Allow"].split(",")}
        headers["Allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    return problem_response(request, kind(str(error.detail)), headers)


async def on_unexpected(request: Request, error: Exception) -> Response:
    """Answer anything else: 503 while a server is away, 500 for a defect of ours, which goes to the log."""
    if is_unreachable(error) or sqlstate(error) == QUERY_CANCELED:
        # What fails while or after it is committed has a text of its own (wallet_api/transactions.py).
        log.warning("request_failed_server_away", error=error, path=request.url.path, why=explained(error))
        return problem_response(request, unavailable(error))
    log.defect("request_failed", error=error, path=request.url.path)
    return problem_response(request, problems.InternalError("The error is in the log. The outcome is unknown."))


EXCEPTION_HANDLERS: Final[Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]]] = {
    Problem: on_problem,
    RequestValidationError: on_invalid_request,
    HTTPException: on_http_exception,
    # Named, so that Starlette takes them as answered; what falls to `Exception` it raises once more.
    OSError: on_unexpected,
    TimeoutError: on_unexpected,
    SQLAlchemyError: on_unexpected,
    **dict.fromkeys(DRIVER_ERRORS, on_unexpected),
    Exception: on_unexpected,
}


def probe_routes(checks: Checks) -> list[BaseRoute]:
    """Return `/live` (the process runs), `/ready` (what it needs answers) and `/metrics` (Prometheus)."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def ready(_: Request) -> Response:
        found = await checks()
        is_ready = all(state == "ok" or state.startswith(WARNING) for state in found.values())
        body = {"status": "ready" if is_ready else "not ready", "checks": dict(found)}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    return [Route(path, endpoint) for path, endpoint in zip(_PROBES, (live, ready, metrics_endpoint), strict=True)]


async def metrics_endpoint(_: Request) -> Response:
    """Answer with this process's metrics, or with the sum over all workers of a multi-process server."""
    registry = REGISTRY
    if directory := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        _forget_dead_workers(Path(directory))
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _forget_dead_workers(directory: Path) -> None:
    """Let a worker that was killed take what it had open along: its gauges are no part of the sum."""
    for pid in {int(path.stem.rpartition("_")[2]) for path in directory.glob("gauge_live*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


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
            http_request_duration_seconds.labels(scope["method"], path, str(status or 500)).observe(
                time.perf_counter() - started
            )


async def _last_resort(error: BaseException, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what no handler has answered, before the server would do so in plain text; the server logs it."""
    problem = (
        problems.Unavailable("The server stopped before the answer. Retry with the same key.")
        if isinstance(error, asyncio.CancelledError)
        else problems.InternalError("The error is in the log. Nothing is known of its effect.")
    )
    await problem_response(Request(scope), problem)(scope, receive, send)


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


def ops_server(checks: Checks, host: str, port: int) -> BackgroundServer:
    """Return the server of a worker's `/live`, `/ready` and `/metrics`."""
    app = Starlette(routes=probe_routes(checks), exception_handlers=dict(EXCEPTION_HANDLERS))
    return background_server(app, host, port)
