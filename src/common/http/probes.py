"""Probes and metrics: `/live`, `/ready` and `/metrics`, of the APIs and of the workers' ops servers."""

import os
from pathlib import Path
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from common.checks import Checks, are_ready
from common.http.metrics_guard import MetricsGuard
from common.http.problem_responses import EXCEPTION_HANDLERS, problem_response
from common.http.server import BackgroundServer, background_server
from common.secrets import Secret

PROBES: Final = ("/live", "/ready", "/metrics")


def probe_routes(checks: Checks, guard: MetricsGuard) -> list[BaseRoute]:
    """Return `/live` (the process runs), `/ready` (its dependencies work) and `/metrics` (Prometheus).

    Args:
        checks: the states of the dependencies.
        guard: refuses readers of `/metrics`.
    """

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def ready(_: Request) -> Response:
        found = await checks()
        is_ready = are_ready(found.values())
        body = {"status": "ready" if is_ready else "not ready", "checks": dict(found)}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    async def metrics(request: Request) -> Response:
        refusal = guard.refusal(request)
        return _metrics() if refusal is None else problem_response(request, refusal)

    return [Route(path, endpoint) for path, endpoint in zip(PROBES, (live, ready, metrics), strict=True)]


def _metrics() -> Response:
    """Return this process's metrics, or the sum over all workers of a multi-process server."""
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


def ops_server(checks: Checks, host: str, port: int, metrics_token: Secret | None) -> BackgroundServer:
    """Return the server of a worker's `/live`, `/ready` and `/metrics`."""
    routes = probe_routes(checks, MetricsGuard(host, metrics_token))
    app = Starlette(routes=routes, exception_handlers=dict(EXCEPTION_HANDLERS))
    return background_server(app, host, port)
