"""Every error as a problem document (RFC 9457)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from common import problems
from common.http.paths import path_of
from common.postgres.errors import DRIVER_ERRORS, is_temporary, message_with_remedy, unavailable
from common.problems import MEDIA_TYPE, Problem
from common.rate_limited_logs import RateLimitedLog

log = RateLimitedLog(structlog.get_logger())

_BY_STATUS: Final[Mapping[int, type[Problem]]] = {
    404: problems.RouteNotFound,
    405: problems.MethodNotAllowed,
    413: problems.ContentTooLarge,
    415: problems.UnsupportedMediaType,
    422: problems.ValidationProblem,
    503: problems.Unavailable,
}
_DETAILS: Final[Mapping[int, str]] = {
    404: "The path does not exist on this server. Check its spelling.",
    405: "The path does not support this method. Use a method that the Allow header lists.",
}


def problem_response(request: Request, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return the problem document as a response."""
    return Response(
        problem.body(path_of(request)),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers={**problem.headers(), **(headers or {})},
    )


async def on_problem(request: Request, error: Exception) -> Response:
    """Reply with the problem that a route raised."""
    assert isinstance(error, Problem)
    return problem_response(request, error)


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """Reply with the errors that FastAPI found in a path, a query or a header."""
    assert isinstance(error, RequestValidationError)
    return problem_response(request, problems.ValidationProblem.of_errors(error.errors()))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Reply to unknown paths and methods."""
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code, problems.BadRequest)
    headers = dict(error.headers or {})
    if "Allow" in headers:
        methods = _methods_of(request)
        headers["Allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    return problem_response(request, kind(_DETAILS.get(error.status_code, str(error.detail))), headers)


def _methods_of(request: Request) -> set[str]:
    """Return the methods of all routes that have the request's path: Starlette names those of the first one."""
    routes = [route for route in request.app.router.routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in routes for method in getattr(route, "methods", None) or ()}


async def on_unexpected(request: Request, error: Exception) -> Response:
    """Reply to any other exception: 503 while the database is away or busy, 500 for a defect, which is logged."""
    return problem_response(request, unexpected_problem(error, request.url.path))


def unexpected_problem(error: Exception, path: str) -> Problem:
    """Log an exception that is no problem, and return the problem that the client of the request gets."""
    if is_temporary(error):
        # A failed COMMIT has a problem of its own (wallet_api/group_commit/group_commit.py).
        log.warning("request_failed_server_away", error=error, path=path, why=message_with_remedy(error))
        return unavailable(error)
    log.defect("request_failed", error=error, path=path)
    return problems.InternalError("The outcome is unknown. The server's log has the cause.")


EXCEPTION_HANDLERS: Final[Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]]] = {
    Problem: on_problem,
    RequestValidationError: on_invalid_request,
    HTTPException: on_http_exception,
    # Each by its name: Starlette raises an exception again that only the handler of `Exception` takes.
    OSError: on_unexpected,
    TimeoutError: on_unexpected,
    SQLAlchemyError: on_unexpected,
    **dict.fromkeys(DRIVER_ERRORS, on_unexpected),
    Exception: on_unexpected,
}
