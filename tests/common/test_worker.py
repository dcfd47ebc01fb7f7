import asyncio

import httpx
import pytest
import structlog
from starlette.applications import Starlette
from structlog.testing import LogCapture

from common import worker
from common.http.metrics_guard import MetricsGuard
from common.http.probes import ops_server, probe_routes
from common.worker import Health, serve_until_stopped


async def ready(health: Health) -> httpx.Response:
    transport = httpx.ASGITransport(app=Starlette(routes=probe_routes(health, MetricsGuard("127.0.0.1", None))))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get("/ready")


async def test_a_worker_with_a_warning_is_ready_and_shows_it() -> None:
    health = Health({"database": "ok"})
    health.warn("topic", "cleanup.policy is compact")
    answer = await ready(health)
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert answer.json()["checks"]["topic"] == "warning: cleanup.policy is compact"
    health.failed("database", "away")
    assert (await ready(health)).status_code == 503


async def test_a_worker_that_fails_ends_with_a_line_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    seen = LogCapture()
    monkeypatch.setattr(worker, "log", structlog.wrap_logger(None, processors=[seen]))
    with pytest.raises(ZeroDivisionError):
        await serve_until_stopped(ops_server(Health(), "127.0.0.1", 0, None), work())
    assert [(entry["event"], entry["log_level"]) for entry in seen.entries] == [("worker_failed", "critical")]
