"""Which caller may read whose history, and that a stranger's wallet is like one of which no event has arrived."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access.caller import HISTORY_READ
from common.http.authentication import OPEN_PATHS
from history_consumer.read_api.app import create_app
from history_consumer.settings import HistoryApiSettings
from support.callers import believe_callers, credentials, one_of_each, routes_of
from support.history_events import History, Wallet

OpenApi = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

UNKNOWN = "0198c2a5-0000-7000-8000-000000000001"
ADA = credentials("key-of-ada", "ada")
# Each route, with the status that a caller of another user gets.
ROWS = {("GET", "/history/wallets/{wallet_id}"): 200, ("GET", "/history/users/{user_id}"): 403}


@pytest.fixture
async def api(
    open_api: OpenApi, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose requests name their callers."""
    believe_callers(monkeypatch)
    async with open_api(database_url, history_min_version_wait_seconds=0.1) as client:
        yield client


def application() -> FastAPI:
    return create_app(HistoryApiSettings(database_url="postgresql://nowhere/x", log_level="warning"))


def test_each_route_has_a_row_and_declares_its_scope_and_no_other_route_is_there() -> None:
    scoped, others = routes_of(application())
    assert scoped == dict.fromkeys(ROWS, (HISTORY_READ,))
    assert others <= OPEN_PATHS


def test_each_operation_documents_its_scope_and_its_refusals() -> None:
    operations = {
        (method.upper(), path): operation
        for path, operations in application().openapi()["paths"].items()
        for method, operation in operations.items()
    }
    assert operations.keys() == ROWS.keys()
    for operation in operations.values():
        assert operation["security"] == [{"bearer": [HISTORY_READ]}]
        assert operation["responses"].keys() >= {"401", "403"}


@pytest.mark.parametrize(("method", "path"), ROWS)
async def test_a_route_answers_each_caller_as_its_row_says(
    open_api: OpenApi, database_url: str, operator: AsyncEngine, history: History, method: str, path: str
) -> None:
    ada = Wallet("ada")
    await history.add(ada.created())
    callers = await one_of_each(operator, HISTORY_READ)
    by_route = {"other user": ROWS[method, path], "right": 200, "unbound": 200}
    items = {}
    async with open_api(database_url, auth="keys") as api:
        target = path.format(wallet_id=ada.id, user_id="ada")
        for name, (headers, status) in callers.items():
            head, reply = [await api.request(each, target, headers=headers) for each in ("HEAD", method)]
            assert (name, head.status_code, reply.status_code) == (name, *[status or by_route[name]] * 2)
            items[name] = reply.json().get("items")
    assert [item["wallet_id"] for item in items["right"]] == [str(ada.id)]
    assert items["right"] == items["unbound"]
    assert not items["other user"]


async def test_a_strangers_history_is_like_that_of_a_wallet_of_which_nothing_has_arrived(
    api: httpx.AsyncClient, history: History
) -> None:
    ada, bob, gap = Wallet("ada"), Wallet("bob"), Wallet("bob")
    first, _, third = gap.created(), gap.funded(), gap.funded()
    await history.add(ada.created(), bob.created(), bob.funded(), bob.sent(ada), first, third)
    queries = [
        ("", 200),
        ("?order=asc&limit=1", 200),
        ("?event_type=WALLET_FUNDED&from=2020-01-01T00:00:00Z", 200),
        ("?min_version=1", 503),
        ("?min_version=3", 503),
        ("?limit=0", 422),
        ("?cursor=x", 422),
        ("?min_version=0", 422),
    ]
    for query, status in queries:
        unknown = await api.get(f"/history/wallets/{UNKNOWN}{query}", headers=ADA)
        assert unknown.status_code == status
        for wallet in (bob, gap):
            reply = await api.get(f"/history/wallets/{wallet.id}{query}", headers=ADA)
            assert reply.content.replace(str(wallet.id).encode(), UNKNOWN.encode()) == unknown.content
            assert (reply.status_code, reply.headers.multi_items()) == (status, unknown.headers.multi_items())
    own = (await api.get(f"/history/wallets/{ada.id}?min_version=2", headers=ADA)).json()
    assert [item["counterparty_wallet_id"] for item in own["items"]] == [str(bob.id), None]


async def test_a_cursor_of_another_caller_opens_no_other_list(api: httpx.AsyncClient, history: History) -> None:
    bob = Wallet("bob")
    await history.add(bob.created(), bob.funded())
    path = f"/history/wallets/{bob.id}?limit=1"
    cursor = (await api.get(path, headers=credentials("bob", "bob"))).json()["next_cursor"]
    assert cursor
    assert (await api.get(f"{path}&cursor={cursor}", headers=ADA)).json()["items"] == []


async def test_the_history_of_another_user_is_forbidden_alike_whether_the_user_exists_or_not(
    api: httpx.AsyncClient, history: History
) -> None:
    await history.add(Wallet("bob").created())
    replies = [await api.get(f"/history/users/{user_id}", headers=ADA) for user_id in ("bob", "eve")]
    assert [reply.status_code for reply in replies] == [403, 403]
    assert replies[0].content.replace(b"/bob", b"/eve") == replies[1].content
