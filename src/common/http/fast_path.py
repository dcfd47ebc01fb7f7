"""Plain Starlette routes in front of FastAPI's middleware, router and dependencies.

These took four tenths of an API process's time (docs/decisions/0010-group-commit.md). FastAPI has the same endpoints,
for its OpenAPI document; a request that no route here takes goes on to FastAPI.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from common.http.authorization import Authorized, ScopedRoute

Handlers = Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]]


def plain_routes(router: APIRouter) -> list[Route]:
    """Return the router's routes as plain ones, which need the same scopes: their endpoints take the request alone."""
    return [
        Route(
            route.path,
            Authorized(request_response(route.endpoint), route.needed, route.lists),
            methods=list(route.methods or ()),
        )
        for route in router.routes
        if isinstance(route, ScopedRoute)
    ]


class FastPath:
    """ASGI middleware: answers requests for its routes and passes all other requests on.

    Args:
        app: gets the other requests.
        routes: of the endpoints that are answered here.
        handlers: of the exceptions that an endpoint raises.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[Route], handlers: Handlers) -> None:
        self.app = app
        # By the last segment of their paths, so that most requests try one route.
        self._by_end: dict[str, list[Route]] = {}
        self._others: list[Route] = []
        for route in routes:
            end = _end_of(route.path)
            (self._others if "{" in end else self._by_end.setdefault(end, [])).append(route)
        self._handlers: tuple[Handlers, Handlers] = handlers, {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        for route in self._candidates(scope):
            match, found = route.matches(scope)
            if match is Match.FULL:
                # Where Starlette's Route looks for them, and RequestMetrics for the route.
                scope.update(found)
                scope["route"], scope["starlette.exception_handlers"] = route, self._handlers
                await route.handle(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _candidates(self, scope: Scope) -> Iterable[Route]:
        # The lifespan has no path.
        return (*self._by_end.get(_end_of(scope["path"]), ()), *self._others) if scope["type"] == "http" else ()


def _end_of(path: str) -> str:
    return path.rpartition("/")[2]
