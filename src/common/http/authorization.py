"""The scopes of which a route's callers need one: declared beside the route, checked before its request is read.

A route without a scope cannot be defined on a router of `ScopedRoute`, and `create_api` takes no other routes.
"""

from collections.abc import Collection
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
from common.http.query_strings import list_parameters, repeated_parameter
from common.problems import BadRequest, Forbidden, Problem, TooManyRequests, Unauthorized

_BEARER: Final = HTTPBearer(scheme_name="bearer", description="An API key or a JWT.", auto_error=False)


def needs(*scopes: str) -> Any:
    """Return the dependency that declares the scope of a route, or of all routes of a router.

    Of several scopes a caller needs one. FastAPI documents them. The dependency itself checks nothing: `ScopedRoute`
    does, before all dependencies.
    """
    return Security(_BEARER, scopes=scopes)


class Authorized:
    """ASGI application of a route: refuses a caller without the scope before anything of the request is read.

    It then refuses a query that has a parameter twice.

    Args:
        app: answers the other requests.
        needed: the scopes of which it needs one.
        lists: the query's parameters that may be repeated.
    """

    def __init__(self, app: ASGIApp, needed: Collection[str], lists: Collection[str]) -> None:
        self._app = app
        self._needed = needed
        self._lists = lists

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it (RFC 6750, section 3.1)."""
        caller: Caller = scope["caller"]
        if caller.scopes.isdisjoint(self._needed):
            await problem_response(Request(scope), _lacks(*self._needed))(scope, receive, send)
            return
        # Nearly no request that moves money has a query.
        if (query := scope["query_string"]) and (problem := repeated_parameter(query, self._lists)):
            await problem_response(Request(scope), problem)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class ScopedRoute(APIRoute):
    """A route that refuses a caller without its scope, and a query that has a parameter twice.

    Raises:
        TypeError: the route declares no scope, or declares it twice. Declare it with `dependencies=[needs(SCOPE)]`.
    """

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        declared = [each.scopes for each in self.dependencies if isinstance(each, params.Security)]
        if len(declared) != 1 or not declared[0]:
            raise TypeError(f"{path}: declare once the scope that its callers need, with dependencies=[needs(SCOPE)]")
        self.needed = tuple(declared[0])
        self.lists = list_parameters(self.dependant)
        self.app = Authorized(self.app, self.needed, self.lists)


def check_scope(caller: Caller, needed: str) -> None:
    """Refuse a caller without this scope, where a request needs another one than its route.

    Raises:
        Forbidden: it lacks the scope.
    """
    if needed not in caller.scopes:
        raise _lacks(needed)


def _lacks(*needed: str) -> Forbidden:
    detail = f"Authorization: the caller lacks the scope {' or '.join(needed)}. Use credentials that have it."
    return Forbidden(detail, " ".join(needed))


def _documented(problem: Problem, description: str) -> dict[str, Any]:
    return problem_documentation(description, orjson.loads(problem.body("/wallets/0198c2a5-…")))


ACCESS_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: _documented(BadRequest("Authorization: send it once."), "bad-request: a header of one value is sent twice"),
    401: _documented(Unauthorized.missing(), "unauthorized, with WWW-Authenticate"),
    403: _documented(_lacks("wallets:read"), "forbidden: the scope is missing, or the user is another one"),
    429: _documented(TooManyRequests("The caller has sent more requests than its limit."), "too-many-requests"),
}
"""The errors of each route, for the OpenAPI documents."""
