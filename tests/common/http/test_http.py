"""What all servers share: the replies of last resort, the probes' errors, the sum over workers."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.http.metrics_guard import MetricsGuard
from common.http.probes import _forget_dead_workers, ops_server, probe_routes
from common.http.problem_responses import EXCEPTION_HANDLERS
from common.http.request_metrics import RequestMetrics
from common.secrets import Secret
from support.ports import free_port
from support.raw_http import Client, post, request, running, serving


async def checks() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def ops_port() -> Iterator[int]:
    """A server of the probes alone, as workers have it."""
    app = Starlette(
        routes=probe_routes(checks, MetricsGuard("127.0.0.1", None)), exception_handlers=dict(EXCEPTION_HANDLERS)
    )
    with serving(app) as port:
        yield port


@pytest.mark.parametrize("path", ["/live", "/ready"])
def test_head_of_a_probe_is_its_get_without_content(ops_port: int, path: str) -> None:
    with Client(ops_port) as client:
        got = client.send(request(f"GET {path} HTTP/1.1")).reply()
        head = client.send(request(f"HEAD {path} HTTP/1.1")).reply(to_head=True)
        assert (head.status, head.headers["content-length"]) == (200, str(len(got.body)))
        assert client.send(request("GET /live HTTP/1.1")).reply().body == b'{"status":"live"}'


@pytest.mark.parametrize(("line", "status"), [("GET /nowhere HTTP/1.1", 404), ("OPTIONS /live HTTP/1.1", 405)])
def test_what_an_ops_server_does_not_have_is_a_problem_document(ops_port: int, line: str, status: int) -> None:
    with Client(ops_port) as client:
        reply = client.send(request(line)).reply()
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert reply.headers.get("allow", "GET, HEAD") == "GET, HEAD"


def test_a_workers_ops_server_asks_for_the_token_too() -> None:
    port = free_port()
    with running(ops_server(checks, "127.0.0.1", port, Secret("s3cret"))), Client(port) as client:
        asked = [[], ["Authorization: Bearer wrong"], ["Authorization: Bearer s3cret"]]
        replies = [client.send(request("GET /metrics HTTP/1.1", fields)).reply().status for fields in asked]
        assert client.send(request("GET /ready HTTP/1.1")).reply().status == 200
    assert replies == [401, 401, 200]


async def _fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError


def test_an_error_that_nothing_has_answered_is_a_problem_document_to_the_client() -> None:
    with serving(RequestMetrics(_fail)) as port, Client(port) as client:
        reply = client.send(post("/x")).reply()
        assert (reply.status, json.loads(reply.body)["code"]) == (500, "internal-error")
        assert client.closed()


async def test_a_request_that_the_server_cancels_when_it_stops_is_answered_503() -> None:
    sent: list[Message] = []

    async def wait(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    task = asyncio.create_task(_ask(RequestMetrics(wait), receive, send))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (sent[0]["status"], json.loads(sent[1]["body"])["code"]) == (503, "unavailable")


async def _ask(app: ASGIApp, receive: Any, send: Any) -> None:
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    await app(scope, receive, send)


def test_gauges_of_a_worker_that_is_gone_leave_the_sum(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    files = [tmp_path / f"gauge_livesum_{pid}.db" for pid in (os.getpid(), int(gone.stdout))]
    for file in files:
        file.touch()
    _forget_dead_workers(tmp_path)
    assert [file.exists() for file in files] == [True, False]
