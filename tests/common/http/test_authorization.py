"""A route without a scope cannot be served, and a scope is checked before anything of the request is read."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Query, Request, Response

from common.access.caller import ANONYMOUS, FUNDS_WRITE, OPS_READ, OPS_WRITE, WALLETS_READ, Caller, check_user
from common.http.api import create_api
from common.http.authorization import ScopedRoute, needs
from common.http.settings import HttpApiSettings
from common.problems import Forbidden
from support.callers import believe_callers, credentials


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def number(number: Annotated[int, Query()]) -> Response:
    return Response(str(number))


@asynccontextmanager
async def no_context() -> AsyncIterator[Any]:
    yield None, None


NewApi = Callable[..., FastAPI]


@pytest.fixture
def new_api(monkeypatch: pytest.MonkeyPatch) -> NewApi:
    believe_callers(monkeypatch)

    def make(router: APIRouter, *fast_routers: APIRouter) -> FastAPI:
        return create_api("Test", "", "127.0.0.1", HttpApiSettings(), no_context, no_context, [router], fast_routers)

    return make


def test_a_route_that_declares_no_scope_or_declares_it_twice_cannot_be_defined() -> None:
    for declared in ([], [needs()], [needs(OPS_READ), needs(OPS_WRITE)]):
        router = APIRouter(route_class=ScopedRoute)
        with pytest.raises(TypeError, match="/open: declare once the scope"):
            router.get("/open", dependencies=declared)(echo)


def test_an_api_takes_no_route_that_checks_no_scope(new_api: NewApi) -> None:
    documented, hidden = APIRouter(), APIRouter(route_class=ScopedRoute)
    documented.get("/open", dependencies=[needs(OPS_READ)])(echo)
    hidden.add_route("/open", echo)
    for router in (documented, hidden):
        with pytest.raises(TypeError, match="route_class is ScopedRoute"):
            new_api(router)


@pytest.mark.parametrize("is_fast", [True, False])
async def test_a_caller_without_the_scope_is_refused_before_its_request_is_read(new_api: NewApi, is_fast: bool) -> None:
    router = APIRouter(route_class=ScopedRoute, dependencies=[needs(FUNDS_WRITE)])
    router.post("/echo")(echo)
    app = new_api(router, *([router] if is_fast else []))

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        refused = await client.post("/echo", content=body(), headers=credentials("eve", scopes=[WALLETS_READ]))
        allowed = await client.post("/echo", content=b"x", headers=credentials("ada", scopes=[FUNDS_WRITE]))
    assert (refused.status_code, refused.json()["code"], refused.json()["instance"]) == (403, "forbidden", "/echo")
    assert "lacks the scope funds:write" in refused.json()["detail"]
    assert 'error="insufficient_scope", scope="funds:write"' in refused.headers["www-authenticate"]
    assert (allowed.status_code, allowed.content) == (200, b"x")


async def test_of_several_scopes_a_caller_needs_one(new_api: NewApi) -> None:
    router = APIRouter(route_class=ScopedRoute)
    router.post("/echo", dependencies=[needs(FUNDS_WRITE, OPS_WRITE)])(echo)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(new_api(router)), base_url="http://test") as client:
        for scopes, status in (([FUNDS_WRITE], 200), ([OPS_WRITE, WALLETS_READ], 200), ([WALLETS_READ], 403)):
            reply = await client.post("/echo", headers=credentials("ada", scopes=scopes))
            assert reply.status_code == status
    assert 'scope="funds:write ops:write"' in reply.headers["www-authenticate"]


async def test_a_caller_without_the_scope_does_not_learn_what_else_is_wrong(new_api: NewApi) -> None:
    router = APIRouter(route_class=ScopedRoute)
    router.get("/number", dependencies=[needs(OPS_READ)])(number)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(new_api(router)), base_url="http://test") as client:
        refused = await client.get("/number?number=x", headers=credentials("eve", scopes=[OPS_WRITE]))
        invalid = await client.get("/number?number=x", headers=credentials("ada", scopes=[OPS_READ]))
    assert (refused.status_code, invalid.status_code) == (403, 422)


def test_a_caller_acts_for_its_user_only_and_one_that_is_bound_to_no_user_for_all() -> None:
    bound = Caller("key", "ada", frozenset())
    check_user(bound, "ada")
    for user_id in ("bob", "Ada", "ada ", ""):
        with pytest.raises(Forbidden):
            check_user(bound, user_id)
        check_user(ANONYMOUS, user_id)
