"""The wallet API keeps to HTTP: headers, methods, and no body that runs as a request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient, Response

from common.http.heads import LIST_FIELDS, SINGLE_FIELDS
from common.http.server import background_server
from common.tables.roles import Role
from history_consumer.read_api.app import create_app as create_history
from history_consumer.settings import HistoryApiSettings
from support.ports import free_port
from support.raw_http import Client, post, request
from support.roles import Roles
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
AssertProblem = Callable[[Response, int, str], Json]
Sql = Callable[..., Awaitable[list[asyncpg.Record]]]
Lines = list[tuple[str, str]]

JSON_LINE = ("Content-Type", "application/json")
FUND = b'{"amount": "1.00"}'
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Idempotency-Key", ["first", "second"]),
        ("Idempotency-Key", ["same", "same"]),
        ("Content-Type", ["application/json", "text/plain"]),
    ],
)
async def test_two_lines_of_a_header_of_one_value_are_refused_in_either_order_and_no_money_moves(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, name: str, values: list[str]
) -> None:
    wallet = await new_wallet(balance="5")
    others = [line for line in [JSON_LINE] if line[0] != name]
    for order in (values, values[::-1]):
        lines = [*others, *((name, value) for value in order)]
        for path in ("/wallets", f"/wallets/{wallet['id']}/fund", f"/wallets/{wallet['id']}/transfer"):
            problem = assert_problem(await client.post(path, content=FUND, headers=lines), 400, "bad-request")
            assert [error["field"] for error in problem["errors"]] == [name]
    assert (await client.get(f"/wallets/{wallet['id']}")).json() == wallet


@pytest.mark.parametrize(
    "lines",
    [
        [("If-Match", '"7"'), ("If-Match", '"2"')],
        [("If-Match", '"2"'), ("If-Match", '"7"')],
        [("If-Match", ""), ("If-Match", ', "2",,')],
    ],
)
async def test_all_lines_of_if_match_count(client: AsyncClient, new_wallet: NewWallet, lines: Lines) -> None:
    wallet = await new_wallet(balance="5")
    path = f"/wallets/{wallet['id']}/fund"
    assert (await client.post(path, content=FUND, headers=[JSON_LINE, *lines])).status_code == 200
    assert (await client.post(path, content=FUND, headers=[JSON_LINE, *lines])).status_code == 412


async def test_all_lines_of_if_none_match_count(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet(balance="5")
    lines = [("If-None-Match", '"7", '), ("If-None-Match", 'W/"2"')]
    assert (await client.get(f"/wallets/{wallet['id']}", headers=lines)).status_code == 304


async def test_a_repeated_traceparent_is_ignored_as_a_broken_one_is(
    client: AsyncClient, new_wallet: NewWallet, sql: Sql
) -> None:
    wallet = await new_wallet()
    for count in (1, 2):
        lines = [JSON_LINE, *[("traceparent", TRACEPARENT)] * count]
        assert (await client.post(f"/wallets/{wallet['id']}/fund", content=FUND, headers=lines)).status_code == 200
    _created, once, twice = await sql("SELECT headers::text FROM wallet.outbox ORDER BY id")
    assert TRACEPARENT in once["headers"]
    assert twice["headers"] is None


@pytest.mark.parametrize("encodings", [["gzip"], ["identity, br"], ["identity", "x-gzip"], ["GZIP"], ["zstd"]])
async def test_a_body_that_is_compressed_is_refused_with_the_way_out(
    client: AsyncClient, new_wallet: NewWallet, assert_problem: AssertProblem, encodings: list[str]
) -> None:
    wallet = await new_wallet()
    lines = [JSON_LINE, *(("Content-Encoding", encoding) for encoding in encodings)]
    refused = await client.post(f"/wallets/{wallet['id']}/fund", content=b"\x1f\x8b\x08", headers=lines)
    assert_problem(refused, 415, "unsupported-content-encoding")
    assert refused.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("encoding", ["identity", "Identity", "", "identity,,"])
async def test_a_body_that_is_not_compressed_may_say_so(
    client: AsyncClient, new_wallet: NewWallet, encoding: str
) -> None:
    wallet = await new_wallet()
    lines = [JSON_LINE, ("Content-Encoding", encoding)]
    assert (await client.post(f"/wallets/{wallet['id']}/fund", content=FUND, headers=lines)).status_code == 200


def test_every_header_that_a_route_reads_is_known_to_have_one_value_or_to_be_a_list(database_url: str) -> None:
    for app in (
        create_app(WalletApiSettings(auth="none", database_url=database_url)),
        create_history(HistoryApiSettings(auth="none", database_url=database_url)),
    ):
        for operations in app.openapi()["paths"].values():
            for operation in operations.values():
                headers = {item["name"].lower() for item in operation.get("parameters", ()) if item["in"] == "header"}
                assert {name.encode() for name in headers} <= SINGLE_FIELDS | LIST_FIELDS


async def test_head_is_get_without_content_on_every_path(client: AsyncClient, new_wallet: NewWallet) -> None:
    wallet = await new_wallet(balance="5")
    unknown = "0198c2a5-0000-7000-8000-000000000001"
    paths = [f"/wallets/{wallet['id']}", f"/wallets/{wallet['id']}/transactions?limit=1", "/users/ada/wallets"]
    paths += ["/live", "/ready", "/openapi.json", "/docs", f"/wallets/{unknown}", "/wallets/x", "/nowhere"]
    for path in paths:
        got, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.headers, head.content) == (got.status_code, got.headers, b"")
    unchanged = {"If-None-Match": f'"{wallet["version"]}"'}
    assert (await client.head(f"/wallets/{wallet['id']}", headers=unchanged)).status_code == 304
    metrics = (await client.get("/metrics")).text
    assert 'http_request_duration_seconds_count{method="HEAD",route="/wallets/{wallet_id}",status="200"}' in metrics


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/wallets/x", "GET, HEAD"),
        ("OPTIONS", "/wallets/x", "GET, HEAD"),
        ("TRACE", "/users/ada/wallets", "GET, HEAD"),
        ("POST", "/wallets/x/transactions", "GET, HEAD"),
        ("PUT", "/live", "GET, HEAD"),
        ("HEAD", "/wallets", "POST"),
        ("GET", "/wallets/x/fund", "POST"),
        ("PATCH", "/wallets/x/transfer", "POST"),
        ("PUT", "/wallets/x/holds", "GET, HEAD, POST"),
    ],
)
async def test_a_method_that_a_path_does_not_know_is_told_those_that_it_knows(
    client: AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.fixture
async def served(database_url: str, roles: Roles) -> AsyncIterator[int]:
    """The port of a real server of the API."""
    url = roles.url(database_url, Role.API)
    app = create_app(WalletApiSettings(auth="none", database_url=url, log_level="warning"))
    server = background_server(app, "127.0.0.1", port := free_port())
    async with app.router.lifespan_context(app):
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        yield port
        server.should_exit = True
        await serving


async def test_a_whole_request_in_the_body_of_one_that_offers_to_upgrade_moves_no_money(
    client: AsyncClient, new_wallet: NewWallet, served: int
) -> None:
    wallet = await new_wallet(balance="5")
    path = f"/wallets/{wallet['id']}/fund"
    inner = post(path, FUND, "Content-Type: application/json")
    offer = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"]
    fields = [*offer, "Content-Type: application/json"]

    def ask(body: bytes) -> int:
        head = request(f"POST {path} HTTP/1.1", [*fields, f"Content-Length: {len(body)}"])
        with Client(served) as raw:
            status = raw.send(head, body).reply().status
            assert raw.send(request("GET /live HTTP/1.1")).reply().body == b'{"status":"live"}'
            return status

    assert await asyncio.to_thread(ask, inner) == 400
    assert (await client.get(f"/wallets/{wallet['id']}")).json() == wallet
    assert await asyncio.to_thread(ask, FUND) == 200
    assert (await client.get(f"/wallets/{wallet['id']}")).json()["balance"] == "6.00"


async def test_a_client_that_has_shut_down_its_sending_side_hears_what_became_of_its_money(
    client: AsyncClient, new_wallet: NewWallet, served: int
) -> None:
    wallet = await new_wallet(balance="5")

    def ask(sent: bytes) -> tuple[int, bool]:
        with Client(served) as raw:
            return raw.send(sent).finish().reply().status, raw.closed()

    fund = post(f"/wallets/{wallet['id']}/fund", FUND, "Content-Type: application/json")
    assert await asyncio.to_thread(ask, fund) == (200, True)
    listed = request(f"GET /wallets/{wallet['id']}/transactions HTTP/1.1")
    assert await asyncio.to_thread(ask, listed) == (200, True)
    assert (await client.get(f"/wallets/{wallet['id']}")).json()["balance"] == "6.00"
