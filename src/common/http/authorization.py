"""The scope that the callers of a route need: declared beside the route, checked before its request is read.

A route without a scope cannot be defined on a router of `ScopedRoute`, and `create_api` takes no other routes.
"""

from typing import Any, Final

import orjson
from fastapi import Security, params
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from common.access.caller import Caller
from common.http.openapi import problem_documentation
from common.http.problem_responses import problem_response
from common.problems import BadRequest, Forbidden, Problem, TooManyRequests, Unauthorized

_BEARER: Final = HTTPBearer(scheme_name="bearer", description="An API key or a JWT.", auto_error=False)


def needs(scope: str) -> Any:
    """Return the dependency that declares the scope of a route, or of all routes of a router.

    FastAPI documents it. The dependency itself checks nothing: `ScopedRoute` does, before all dependencies.
    """
    return Security(_BEARER, scopes=[scope])


class Authorized:
    """ASGI application of a route: refuses a caller without the scope before anything of the request is read.

    Args:
        app: answers the other requests.
        needed: the scope.
    """

    def __init__(self, app: ASGIApp, needed: str) -> None:
        self._app = app
        self._needed = needed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it (RFC 6750, section 3.1)."""
        caller: Caller = scope["caller"]
        if self._needed in caller.scopes:
            await self._app(scope, receive, send)
            return
        await problem_response(Request(scope), _lacks(self._needed))(scope, receive, send)


class ScopedRoute(APIRoute):
    """A route that refuses a caller without its scope.

    Raises:
        TypeError: the route declares no scope, or more than one. Declare it with `dependencies=[needs(SCOPE)]`.
    """

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        declared = (each for each in self.dependencies if isinstance(each, params.Security))
        needed = [scope for each in declared for scope in each.scopes or ()]
        if len(needed) != 1:
            raise TypeError(f"{path}: declare the one scope that its callers need, with dependencies=[needs(SCOPE)]")
        self.needed = needed[0]
        self.app = Authorized(self.app, self.needed)


def check_scope(caller: Caller, needed: str) -> None:
    """Refuse a caller without this scope, where a request needs another one than its route.

    Raises:
        Forbidden: it lacks the scope.
    """
    if needed not in caller.scopes:
        raise _lacks(needed)


def _lacks(needed: str) -> Forbidden:
    return Forbidden(f"Authorization: the caller lacks the scope {needed}. Use credentials that have it.", needed)


def _documented(problem: Problem, description: str) -> dict[str, Any]:
    return problem_documentation(description, orjson.loads(problem.body("/wallets/0198c2a5-…")))


ACCESS_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: _documented(BadRequest("Authorization: send it once."), "bad-request: a header of one value is sent twice"),
    401: _documented(Unauthorized.missing(), "unauthorized, with WWW-Authenticate"),
    403: _documented(_lacks("wallets:read"), "forbidden: the scope is missing, or the user is another one"),
    429: _documented(TooManyRequests("The caller has sent more requests than its limit."), "too-many-requests"),
}
"""The errors of each route, for the OpenAPI documents."""
