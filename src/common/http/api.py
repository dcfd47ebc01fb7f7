"""How both APIs are put together: problem documents for every error, metrics, probes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from common.http.fast_path import DirectRoutes, Reader
from common.http.heads import RequestHeads
from common.http.openapi import only_problem_documents
from common.http.probes import Checks, probe_routes
from common.http.problem_responses import EXCEPTION_HANDLERS
from common.http.request_bounds import RequestBounds
from common.http.request_metrics import RequestMetrics
from common.settings import ApiSettings


class _Api(FastAPI):
    """FastAPI, and in front of it our middleware and the direct routes."""

    def __init__(
        self, settings: ApiSettings, direct: Sequence[BaseRoute], readers: Mapping[str, Reader], **options: Any
    ) -> None:
        super().__init__(**options)
        self._settings = settings
        self._direct = [route for route in direct if isinstance(route, APIRoute)]
        self._readers = readers

    def build_middleware_stack(self) -> ASGIApp:
        app = super().build_middleware_stack()
        app = DirectRoutes(app, self._direct, self._readers, EXCEPTION_HANDLERS)
        app = RequestBounds(app, self._settings.requests_max, self._settings.request_deadline_seconds)
        return RequestMetrics(RequestHeads(app))


def create_api(
    title: str,
    summary: str,
    routers: Sequence[APIRouter],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    checks: Checks,
    settings: ApiSettings,
    *,
    direct: Sequence[BaseRoute] = (),
    readers: Mapping[str, Reader] | None = None,
) -> FastAPI:
    """Return an application of these routes with `/live`, `/ready`, `/metrics`, `/docs` and `/openapi.json`.

    Those of them that are `direct` are answered so: `readers` give their endpoints' parameters.
    """
    app = _Api(
        settings,
        direct,
        readers or {},
        title=title,
        summary=summary,
        version="1",
        lifespan=lifespan,
        exception_handlers=dict(EXCEPTION_HANDLERS),
        redirect_slashes=False,
    )
    for router in routers:
        # Not `include_router`, whose routes ask at each request whether the router has changed.
        app.router.routes.extend(router.routes)
    app.router.routes.extend(probe_routes(checks))
    only_problem_documents(app)
    return app
