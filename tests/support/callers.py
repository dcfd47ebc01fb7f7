"""Callers of the APIs that need no keys: a request names its caller's id, user and scopes in its credentials."""

from collections.abc import Collection

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from common.access.caller import SCOPES, Caller

Headers = dict[str, str]


def credentials(caller_id: str, user_id: str | None = None, scopes: Collection[str] = SCOPES) -> Headers:
    """Return the headers of a request of this caller."""
    return {"Authorization": f"Bearer {caller_id}|{user_id or ''}|{','.join(scopes)}"}


class _Authentication:
    """In the place of `Authentication`: takes each request's word for its caller."""

    def __init__(self, app: ASGIApp, _: object) -> None:
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
