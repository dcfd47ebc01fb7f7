"""How both APIs are put together: problem documents for every error, metrics, probes."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import APIRouter, FastAPI

from common.http import EXCEPTION_HANDLERS, Checks, Deadline, RequestMetrics, probe_routes
from common.openapi import only_problem_documents


def create_api(
    title: str,
    summary: str,
    router: APIRouter,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    checks: Checks,
    *,
    deadline_seconds: float,
) -> FastAPI:
    """Return an application of these routes with `/live`, `/ready`, `/metrics`, `/docs` and `/openapi.json`.

    `deadline_seconds` is how long a request may take at most; longer than everything that bounds it by itself.
    """
    app = FastAPI(
        title=title,
        summary=summary,
        version="1",
        lifespan=lifespan,
        exception_handlers=dict(EXCEPTION_HANDLERS),
        redirect_slashes=False,
    )
    app.add_middleware(Deadline, seconds=deadline_seconds)
    app.add_middleware(RequestMetrics)
    app.include_router(router)
    app.router.routes.extend(probe_routes(checks))
    only_problem_documents(app)
    return app
