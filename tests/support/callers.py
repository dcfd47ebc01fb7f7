"""Callers of the APIs: one of each kind, with API keys, or any without keys, that a request names itself."""

from collections.abc import Collection

import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from common.access.api_keys import NewKey, key_text
from common.access.caller import SCOPES, Caller
from common.access.key_acts import create_key, revoke_key
from common.http.authorization import ScopedRoute
from support.api_keys import bearer

Headers = dict[str, str]


def credentials(caller_id: str, user_id: str | None = None, scopes: Collection[str] = SCOPES) -> Headers:
    """Return the headers of a request of this caller."""
    return {"Authorization": f"Bearer {caller_id}|{user_id or ''}|{','.join(scopes)}"}


def routes_of(app: FastAPI) -> tuple[dict[tuple[str, str], tuple[str, ...]], set[str]]:
    """Return the scopes of which each route needs one, by method and path; and the paths of the routes without one."""
    routes = app.router.routes
    scoped = {
        (method, route.path.replace(":path", "")): route.needed
        for route in routes
        if isinstance(route, ScopedRoute)
        for method in route.methods or ()
    }
    return scoped, {getattr(route, "path", "?") for route in routes if not isinstance(route, ScopedRoute)}


async def one_of_each(engine: AsyncEngine, *scopes: str) -> dict[str, tuple[Headers, int | None]]:
    """Create one caller of each kind for a route of ada's data that needs one of the scopes.

    The callers with the right scope have the first of them.

    Returns:
        The headers of each, and the status that it gets on each route; None where it depends on the route.
    """

    async def key(scopes: Collection[str], user_id: str | None, days: float | None = None) -> NewKey:
        return await create_key(engine, "test", "a test", list(scopes), user_id=user_id, expires_in_days=days)

    scope, others = scopes[0], [other for other in SCOPES if other not in scopes]
    revoked = await key([scope], "ada")
    await revoke_key(engine, revoked.id, None)
    return {
        "nobody": ({}, 401),
        "unknown": (bearer(key_text("test", "0" * 12, 4711)), 401),
        "expired": (bearer((await key([scope], "ada", 0)).text), 401),
        "revoked": (bearer(revoked.text), 401),
        "wrong scope": (bearer((await key(others, None)).text), 403),
        "wrong scope, of the user": (bearer((await key(others, "ada")).text), 403),
        "other user": (bearer((await key(SCOPES, "bob")).text), None),
        "right": (bearer((await key([scope], "ada")).text), None),
        "unbound": (bearer((await key([scope], None)).text), None),
    }


class _Authentication:
    """In the place of `Authentication`: takes each request's word for its caller."""

    def __init__(self, app: ASGIApp, *_: object) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            _, _, told = request.headers.get("authorization", "").partition(" ")
            if not told:
                await Response(status_code=401)(scope, receive, send)
                return
            caller_id, user_id, scopes = told.split("|")
            scope["caller"] = Caller(caller_id, user_id or None, frozenset(scopes.split(",")))
        await self._app(scope, receive, send)


def believe_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the APIs that start from now on believe the `credentials` of each request."""
    monkeypatch.setattr("common.http.api.Authentication", _Authentication)
