import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from common.http.fast_path import FastPath


def route(path: str, method: str) -> Route:
    async def tell(request: Request) -> Response:
        return PlainTextResponse(" ".join([path, *map(str, request.path_params.values())]))

    return Route(path, tell, methods=[method])


ROUTES = [route("/a", "POST"), route("/a/{id}", "GET"), route("/a/{id}/move", "POST"), route("/b/{id}/move", "POST")]


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("POST", "/a", "/a"),
        ("GET", "/a/1", "/a/{id} 1"),
        ("POST", "/a/1/move", "/a/{id}/move 1"),
        ("POST", "/b/1/move", "/b/{id}/move 1"),
        # An id that reads like the end of another route.
        ("GET", "/a/move", "/a/{id} move"),
        ("GET", "/a/a", "/a/{id} a"),
        # Other methods and other paths are another application's.
        ("GET", "/a/1/move", "the application"),
        ("POST", "/a/1", "the application"),
        ("POST", "/c/1/move", "the application"),
        ("POST", "/a/1/move/", "the application"),
        ("GET", "/", "the application"),
    ],
)
async def test_each_request_gets_its_route_whatever_its_path_ends_with(method: str, path: str, answer: str) -> None:
    fast = FastPath(PlainTextResponse("the application"), ROUTES, {})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(fast), base_url="http://wallet.test") as client:
        reply = await client.request(method, path)
    assert reply.text == answer
