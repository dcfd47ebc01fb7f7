import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from common.http.request_bounds import RequestBounds

DEADLINE_SECONDS = 0.05


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer `/slow` after the deadline, and begin to answer any other path before it."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(4 * DEADLINE_SECONDS)
        yield b"b"

    if Request(scope).url.path == "/slow":
        await asyncio.sleep(60)
        await Response("too late")(scope, receive, send)
    await StreamingResponse(parts())(scope, receive, send)


@pytest.mark.parametrize(("path", "status"), [("/slow", 503), ("/long", 200)])
async def test_the_deadline_is_that_of_the_beginning_of_the_reply(path: str, status: int) -> None:
    bounded = RequestBounds(application, requests_max=1, deadline_seconds=DEADLINE_SECONDS)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(bounded), base_url="http://wallet.test") as client:
        reply = await client.get(path)
    assert reply.status_code == status
    assert reply.text == "ab" or status != 200
