"""How both APIs are put together: context, problem documents for every error, metrics, probes."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from common.access.authenticator import Authenticator
from common.access.caller import Caller
from common.http.authentication import Authentication
from common.http.authorization import ScopedRoute
from common.http.docs_pages import OPENAPI_PATH, docs_routes
from common.http.fast_path import FastPath, plain_routes
from common.http.heads import RequestHeads
from common.http.metrics_guard import MetricsGuard
from common.http.openapi import only_problem_documents
from common.http.probes import probe_routes
from common.http.problem_responses import EXCEPTION_HANDLERS
from common.http.rate_limits import CallerRateLimit, RefusalLimit
from common.http.request_bounds import RequestBounds
from common.http.request_metrics import RequestMetrics
from common.http.settings import HttpApiSettings, items_of
from common.loopback import is_loopback
from common.postgres.database_health import DatabaseHealth
from common.problems import Problem

Opened = AbstractAsyncContextManager[tuple[Any, DatabaseHealth]]
"""Lends the routes' context and the health of its database while the application runs."""
OpenedAccess = AbstractAsyncContextManager[Authenticator]
"""Lends what finds the caller of each request, while the application runs."""


class _Api(FastAPI):
    """FastAPI behind our middleware and the fast path."""

    def __init__(self, settings: HttpApiSettings, fast_routes: Iterable[Route], **options: Any) -> None:
        super().__init__(
            version="1",
            docs_url=None,
            redoc_url=None,
            exception_handlers=dict(EXCEPTION_HANDLERS),
            redirect_slashes=False,
            # It would read the environment at each request. Prometheus has the metrics.
            telemetry={"tracing": False, "metrics": False, "logs": False},
            **options,
        )
        self._settings = settings
        self._fast_routes = fast_routes

    def build_middleware_stack(self) -> ASGIApp:
        app = super().build_middleware_stack()
        app = FastPath(app, self._fast_routes, EXCEPTION_HANDLERS)
        settings = self._settings
        if settings.rate_limit_requests_per_second is not None:
            app = CallerRateLimit(app, settings.rate_limit_requests_per_second, settings.rate_limit_burst_requests)
        limit = RefusalLimit(settings.authentication_failures_per_second, settings.authentication_failures_burst)
        app = Authentication(app, self._authenticate, limit)
        app = RequestBounds(app, settings.requests_max, settings.request_deadline_seconds)
        app = RequestHeads(app)
        if origins := items_of(settings.cors_allow_origins):
            app = _allow_origins(app, origins)
        return RequestMetrics(app)

    async def _authenticate(self, token: str | None) -> Caller | Problem:
        # The authenticator is opened after the middleware is built.
        authenticator: Authenticator = self.state.authenticator
        return await authenticator.caller_of(token)


def _allow_origins(app: ASGIApp, origins: list[str]) -> ASGIApp:
    """Return the application for scripts of these origins too. Browsers send no cookies: `allow_credentials` is off."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "PUT"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Traceparent"],
        expose_headers=["ETag", "Idempotent-Replayed", "Link", "RateLimit", "RateLimit-Policy", "Retry-After"],
    )


def create_api(
    title: str,
    summary: str,
    host: str,
    settings: HttpApiSettings,
    open_context: Callable[[], Opened],
    open_access: Callable[[], OpenedAccess],
    routers: Sequence[APIRouter],
    fast_routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """Return an application with `/live`, `/ready`, `/metrics` and, by the setting, `/docs` and `/openapi.json`.

    Args:
        title: of the OpenAPI document.
        summary: of the OpenAPI document.
        host: the address that the process listens on.
        settings: what the application lets in.
        open_context: opens `app.state.context`, for the routes.
        open_access: opens the authenticator.
        routers: the documented routes.
        fast_routers: those of them whose routes are answered in front of FastAPI.

    Raises:
        TypeError: a route that isn't a `ScopedRoute` would be open to each caller.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            open_context() as (app.state.context, app.state.database_health),
            open_access() as app.state.authenticator,
        ):
            yield

    async def checks() -> dict[str, str]:
        # The last health check says it, on its own connection: load on the pool must not make this process unready.
        return {"database": app.state.database_health.state(), **app.state.authenticator.states()}

    has_docs = is_loopback(host) if settings.api_docs is None else settings.api_docs
    app = _Api(
        settings,
        [route for router in fast_routers for route in plain_routes(router)],
        title=title,
        summary=summary,
        openapi_url=OPENAPI_PATH if has_docs else None,
        lifespan=lifespan,
    )
    for router in routers:
        # Not `include_router`, whose routes ask at each request whether the router has changed.
        app.router.routes.extend(_scoped(route) for route in router.routes)
    app.router.routes.extend(probe_routes(checks, MetricsGuard(host, settings.metrics_token)))
    if has_docs:
        app.router.routes.extend(docs_routes(title))
    only_problem_documents(app)
    return app


def _scoped(route: BaseRoute) -> ScopedRoute:
    if not isinstance(route, ScopedRoute):
        raise TypeError(f"{route}: define it on a router whose route_class is ScopedRoute")
    return route
