"""How both APIs are put together: problem documents for every error, metrics, probes."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from fastapi import APIRouter, FastAPI

from common.http import EXCEPTION_HANDLERS, Checks, RequestBounds, RequestMetrics, probe_routes
from common.openapi import only_problem_documents
from common.settings import ApiSettings


def create_api(
    title: str,
    summary: str,
    routers: Sequence[APIRouter],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    checks: Checks,
    settings: ApiSettings,
) -> FastAPI:
    """Return an application of these routes with `/live`, `/ready`, `/metrics`, `/docs` and `/openapi.json`."""
    app = FastAPI(
        title=title,
        summary=summary,
        version="1",
        lifespan=lifespan,
        exception_handlers=dict(EXCEPTION_HANDLERS),
        redirect_slashes=False,
    )
    app.add_middleware(
        RequestBounds, requests_max=settings.requests_max, deadline_seconds=settings.request_deadline_seconds
    )
    app.add_middleware(RequestMetrics)
    for router in routers:
        # Not `include_router`, whose routes ask at each request whether the router has changed.
        app.router.routes.extend(router.routes)
    app.router.routes.extend(probe_routes(checks))
    only_problem_documents(app)
    return app
