"""Probes and metrics: `/live`, `/ready` and `/metrics`, of the APIs and of the workers' ops servers."""

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from common.http.problem_responses import EXCEPTION_HANDLERS
from common.http.server import BackgroundServer, background_server

Checks = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the state of each dependency: `"ok"`, or what is wrong with it."""

WARNING: Final = "warning: "
"""Begins the state of a check that needs attention and leaves the process ready."""

PROBES: Final = ("/live", "/ready", "/metrics")


def probe_routes(checks: Checks) -> list[BaseRoute]:
    """Return `/live` (the process runs), `/ready` (its dependencies work) and `/metrics` (Prometheus)."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def ready(_: Request) -> Response:
        found = await checks()
        is_ready = all(state == "ok" or state.startswith(WARNING) for state in found.values())
        body = {"status": "ready" if is_ready else "not ready", "checks": dict(found)}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    return [Route(path, endpoint) for path, endpoint in zip(PROBES, (live, ready, metrics_endpoint), strict=True)]


async def metrics_endpoint(_: Request) -> Response:
    """Reply with this process's metrics, or with the sum over all workers of a multi-process server."""
    registry = REGISTRY
    if directory := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        _forget_dead_workers(Path(directory))
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _forget_dead_workers(directory: Path) -> None:
    """Leave the gauges of workers that were killed out of the sum."""
    for pid in {int(path.stem.rpartition("_")[2]) for path in directory.glob("gauge_live*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


def ops_server(checks: Checks, host: str, port: int) -> BackgroundServer:
    """Return the server of a worker's `/live`, `/ready` and `/metrics`."""
    app = Starlette(routes=probe_routes(checks), exception_handlers=dict(EXCEPTION_HANDLERS))
    return background_server(app, host, port)
