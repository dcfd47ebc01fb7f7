"""Routes of the hot path, answered in front of FastAPI's middleware, router and solving of dependencies.

Those took half of an API process's time (docs/decisions/0010-group-commit.md). The routes are FastAPI's all the same:
their signatures make the OpenAPI document, and what isn't recognised here takes FastAPI's way to the same endpoint.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import signature
from typing import Any
from uuid import UUID

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from common.identifiers import parse_uuid
from common.problems import ValidationProblem

Reader = Callable[[Request], Any]
Handlers = Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]


def path_uuid(name: str) -> Reader:
    """Return what reads a UUID from the path."""

    def read(request: Request) -> UUID:
        try:
            return parse_uuid(request.path_params[name])
        except ValueError as error:
            raise ValidationProblem.of(name, str(error)) from error

    return read


def header(name: str) -> Reader:
    """Return what reads a header: its text, or None."""
    return lambda request: request.headers.get(name)


class DirectRoutes:
    """ASGI middleware that calls an endpoint with what `readers` give for its parameters.

    Args:
        app: gets everything else.
        routes: those to be answered here.
        readers: by the name of the parameter.
        handlers: how exceptions are answered; one of them for any Exception.

    Raises:
        KeyError: an endpoint has a parameter without a reader.
    """

    def __init__(
        self, app: ASGIApp, routes: Iterable[APIRoute], readers: Mapping[str, Reader], handlers: Handlers
    ) -> None:
        self.app = app
        self._routes = [
            (route.methods or (), route, [(name, readers[name]) for name in signature(route.endpoint).parameters])
            for route in routes
        ]
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        if scope["type"] == "http":
            for methods, route, readers in self._routes:
                if scope["method"] in methods and (match := route.path_regex.match(scope["path"])):
                    scope["route"], scope["path_params"] = route, match.groupdict()
                    request = Request(scope, receive, send)
                    response = await self._respond(route, readers, request)
                    await response(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def _respond(self, route: APIRoute, readers: Iterable[tuple[str, Reader]], request: Request) -> Response:
        try:
            response: Response = await route.endpoint(**{name: read(request) for name, read in readers})
        except Exception as error:  # noqa: BLE001 - one of the handlers is for all of them
            kind = next(kind for kind in type(error).__mro__ if kind in self._handlers)
            return await self._handlers[kind](request, error)
        return response
