"""An API as an application in the test's own process, without a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI


@asynccontextmanager
async def client_of(
    app: FastAPI, base_url: str = "http://wallet.test", *, raise_app_exceptions: bool = True
) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application during the block, and lend a client of it.

    Args:
        app: the application.
        base_url: what the client takes for the server's address.
        raise_app_exceptions: whether a defect of the application is raised, instead of the answer 500.
    """
    transport = httpx.ASGITransport(app, raise_app_exceptions=raise_app_exceptions)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=base_url) as client,
    ):
        yield client
