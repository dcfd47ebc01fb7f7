import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from structlog.testing import LogCapture

from common import worker
from common.http.metrics_guard import MetricsGuard
from common.http.probes import ops_server, probe_routes
from common.postgres.engine import create_engine
from common.worker import Health, TemporaryError, serve_until_stopped
from history_consumer import retention as dead_letter_retention
from history_consumer.retention import DeadLetterRetention
from outbox_relay import numbering
from outbox_relay import retention as outbox_retention
from outbox_relay.numbering import Numbering
from outbox_relay.retention import OutboxRetention, RetentionAges
from support.proxy import Proxy

Step = Callable[[], Awaitable[int]]


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


def renumbering(engine: AsyncEngine) -> Step:
    async def renumber() -> int:
        await Numbering(engine, Health()).renumber()
        return 0

    return renumber


BESIDE: dict[str, tuple[Callable[[AsyncEngine], Step], Any, str]] = {
    "outbox": (lambda engine: OutboxRetention(engine, RetentionAges(7, 7)).run_once, outbox_retention, "_CHUNK"),
    "dead letters": (lambda engine: DeadLetterRetention(engine, 30).run_once, dead_letter_retention, "_CHUNK"),
    "stranded rows": (lambda engine: Numbering(engine, Health()).run_once, numbering, "_CHECK"),
    "renumbering": (renumbering, numbering, "_RENUMBER"),
}
"""The steps beside a worker's batches, each with its module and the name of its longest time there."""


@pytest.mark.parametrize("name", BESIDE)
async def test_a_step_whose_connection_a_firewall_has_dropped_gives_up_and_the_next_one_connects_anew(
    name: str, linked_database_url: str, database_link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an end of its own, the step would hang for ever, and keep the worker from ending."""
    new_step, module, bound = BESIDE[name]
    engine = create_engine(linked_database_url, "tests", pool_size=1)
    step = new_step(engine)
    assert await step() == 0
    database_link.silence()
    database_link.heal(forget=True)
    with monkeypatch.context() as hurried:
        hurried.setattr(module, f"{bound}_SECONDS_MAX", 0.3)
        with pytest.raises(TemporaryError, match="no answer in time"):
            await step()
    assert await step() == 0
    await engine.dispose()
