"""A query has each parameter once, but for those that take a list."""

import httpx
import pytest
from fastapi import FastAPI

from common.http.authorization import ScopedRoute
from common.http.query_strings import repeated_parameter
from history_consumer.read_api.app import create_app as create_history_api
from history_consumer.settings import HistoryApiSettings
from support.callers import believe_callers, credentials, routes_of
from wallet_api.app import create_app as create_wallet_api
from wallet_api.settings import WalletApiSettings

URL = "postgresql://nowhere/x"
ID = "0198c2a5-0000-7000-8000-000000000001"


def both_apis() -> list[FastAPI]:
    wallet_api = create_wallet_api(WalletApiSettings(database_url=URL, log_level="warning"))
    return [wallet_api, create_history_api(HistoryApiSettings(database_url=URL, log_level="warning"))]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (b"limit=1&limit=2", "limit"),
        (b"limit=1&order=asc&limit=1", "limit"),
        (b"limit&limit", "limit"),
        (b"%6Cimit=1&limit=2", "limit"),
        (b"colour=a&colour=b", "colour"),
        (b"event_type=A&event_type=B&order=asc&order=asc", "order"),
        (b"event_type=A&event_type=B", None),
        (b"limit=1&order=asc", None),
        (b"&&", None),
        (b"", None),
    ],
)
def test_a_repeated_parameter_is_named_unless_it_takes_a_list(query: bytes, named: str | None) -> None:
    problem = repeated_parameter(query, {"event_type"})
    assert (problem and problem.errors) == (named and [{"field": named, "message": "must be sent once"}])


@pytest.mark.parametrize("number", [0, 1])
async def test_each_route_of_both_apis_refuses_a_parameter_that_is_sent_twice(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Before it asks the database: there is none."""
    believe_callers(monkeypatch)
    app = both_apis()[number]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=credentials("admin")) as client:
        for method, path in routes_of(app)[0]:
            target = path.format(wallet_id=ID, hold_id=ID, transaction_id=ID, user_id="ada")
            for name in ("limit", "colour"):
                reply = await client.request(method, f"{target}?{name}=1&{name}=1")
                assert (path, reply.status_code) == (path, 422)
                assert reply.json()["errors"] == [{"field": name, "message": "must be sent once"}]


def test_only_the_types_of_events_are_a_list() -> None:
    routes = [route for app in both_apis() for route in app.router.routes if isinstance(route, ScopedRoute)]
    assert {route.path: route.lists for route in routes if route.lists} == {
        "/history/wallets/{wallet_id}": {"event_type"},
        "/history/users/{user_id:path}": {"event_type"},
    }
