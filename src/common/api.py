"""How both APIs are put together: problem documents for every error, metrics, probes."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import APIRouter, FastAPI

from common.http import EXCEPTION_HANDLERS, Checks, RequestMetrics, probe_routes
from common.openapi import only_problem_documents


def create_api(
    title: str,
    summary: str,
    router: APIRouter,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    checks: Checks,
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
    app.add_middleware(RequestMetrics)
    app.include_router(router)
    app.router.routes.extend(probe_routes(checks))
    only_problem_documents(app)
    return app
