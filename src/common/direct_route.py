"""Routes of the hot path, called without FastAPI's solving of dependencies.

That solving, and the exit stacks around it, took a third of an API process's time
(docs/decisions/0010-group-commit.md). The endpoint's signature still makes the OpenAPI document.
"""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any
from uuid import UUID

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from common.problems import ValidationProblem

Reader = Callable[[Request], Any]


def path_uuid(name: str) -> Reader:
    """Return what reads a UUID from the path."""

    def read(request: Request) -> UUID:
        try:
            return UUID(request.path_params[name])
        except ValueError as error:
            raise ValidationProblem.of(name, "must be a UUID") from error

    return read


def header(name: str) -> Reader:
    """Return what reads a header: its text, or None."""
    return lambda request: request.headers.get(name)


def direct_route(readers: Mapping[str, Reader]) -> type[APIRoute]:
    """Return a class of routes that call an endpoint with what `readers` give for its parameters.

    Raises:
        KeyError: when a route is made whose endpoint has another parameter.
    """

    class DirectRoute(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
            super().__init__(path, endpoint, **options)
            self._readers = [(name, readers[name]) for name in signature(endpoint).parameters]

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] not in (self.methods or ()):
                await super().handle(scope, receive, send)
                return
            request = Request(scope, receive, send)
            response = await self.endpoint(**{name: read(request) for name, read in self._readers})
            await response(scope, receive, send)

    return DirectRoute
