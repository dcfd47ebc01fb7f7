"""What the API lets in from the network, and what each of its replies says to browsers and caches."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from httpx import AsyncClient, Response

from support.raw_http import Client, Reply, post, request, serving_api
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings

Json = dict[str, Any]
NewWallet = Callable[..., Awaitable[Json]]
OpenClient = Callable[..., AbstractAsyncContextManager[AsyncClient]]
AssertProblem = Callable[[Response, int, str], Json]

UNKNOWN = "/wallets/0198c2a5-0000-7000-8000-000000000001"
ORIGIN = "https://app.example"
JSON = "Content-Type: application/json"


@pytest.fixture
def serve(database_url: str) -> Callable[..., AbstractAsyncContextManager[int]]:
    """Serve the API on a socket, with settings of its own."""

    def serve_(**changes: Any) -> Any:
        settings = WalletApiSettings(**{"auth": "none", "database_url": database_url, "log_level": "error", **changes})
        return serving_api(create_app(settings), settings)

    return serve_


def ask(port: int, sent: bytes, *, to_head: bool = False) -> Reply:
    with Client(port) as client:
        return client.send(sent).reply(to_head=to_head)


def test_every_reply_forbids_caches_and_guesses_of_its_type(serve: Callable[..., Any]) -> None:
    """Also those of the protocol, which no route has made."""
    with serve(strict_transport_security_seconds=31_536_000) as port:
        replies = {
            "a wallet": ask(port, post("/wallets", b'{"user_id":"ada","currency":"EUR"}', JSON)),
            "a list": ask(port, request("GET /users/ada/wallets HTTP/1.1")),
            "an unknown path": ask(port, request("GET /nowhere HTTP/1.1")),
            "an unknown method": ask(port, request("DELETE /wallets HTTP/1.1")),
            "a probe": ask(port, request("GET /ready HTTP/1.1")),
            "metrics": ask(port, request("GET /metrics HTTP/1.1")),
            "no HTTP": ask(port, b"nonsense\r\n\r\n"),
            "no Host": ask(port, request("GET / HTTP/1.1", host="")),
            "a long head": ask(port, request("GET / HTTP/1.1", ["X: " + "x" * 40_000])),
        }
    assert {name: reply.status for name, reply in replies.items()} == {
        "a wallet": 201,
        "a list": 200,
        "an unknown path": 404,
        "an unknown method": 405,
        "a probe": 200,
        "metrics": 200,
        "no HTTP": 400,
        "no Host": 400,
        "a long head": 431,
    }
    for name, reply in replies.items():
        assert reply.headers["cache-control"] == "no-store", name
        assert reply.headers["x-content-type-options"] == "nosniff", name
        assert reply.headers["strict-transport-security"] == "max-age=31536000", name


def test_a_client_that_keeps_a_wallet_still_asks_whether_it_has_changed(serve: Callable[..., Any]) -> None:
    with serve() as port:
        created = ask(port, post("/wallets", b'{"user_id":"ada","currency":"EUR"}', JSON))
        wallet_id = created.body.split(b'"id":"')[1][:36].decode()
        got = ask(port, request(f"GET /wallets/{wallet_id} HTTP/1.1"))
        again = ask(port, request(f"GET /wallets/{wallet_id} HTTP/1.1", [f"If-None-Match: {got.headers['etag']}"]))
    assert (again.status, again.body, again.headers["cache-control"]) == (304, b"", "no-store")
    assert "strict-transport-security" not in again.headers


@pytest.fixture
def statuses() -> Callable[[int, str], list[int]]:
    """Send one request for each list of forwarded addresses; return the replies' statuses."""

    def ask_all(port: int, *forwarded: str) -> list[int]:
        fields = [[f"X-Forwarded-For: {each}"] for each in forwarded]
        return [ask(port, request(f"GET {UNKNOWN} HTTP/1.1", field)).status for field in fields]

    return ask_all


LIMITED = {"rate_limit_requests_per_second": 0.001, "rate_limit_burst_requests": 1}


def test_a_forwarded_address_of_an_untrusted_peer_is_ignored(
    serve: Callable[..., Any], statuses: Callable[..., list[int]]
) -> None:
    with serve(**LIMITED) as port:
        assert statuses(port, "192.0.2.1", "192.0.2.2") == [404, 429]
    with serve(**LIMITED, forwarded_allow_ips="192.0.2.0/24") as port:
        assert statuses(port, "192.0.2.1", "192.0.2.2") == [404, 429]


def test_a_trusted_proxy_tells_clients_apart_and_what_a_client_wrote_before_it_counts_for_nothing(
    serve: Callable[..., Any], statuses: Callable[..., list[int]]
) -> None:
    with serve(**LIMITED, forwarded_allow_ips="127.0.0.1,10.0.0.0/8") as port:
        assert statuses(port, "192.0.2.1", "192.0.2.2") == [404, 404]
        # The client wrote all but the last address; a second trusted proxy may stand behind it.
        assert statuses(port, "198.51.100.1, 192.0.2.1", "198.51.100.2, 192.0.2.2, 10.0.0.9") == [429, 429]
        # Text that is no address is one client, and IPv6 addresses of a network are one.
        assert statuses(port, "unknown", "<script>", "x" * 1000) == [404, 429, 429]
        assert statuses(port, "2001:db8::1", "2001:db8::2", "2001:db8:0:1::2") == [404, 429, 404]


async def test_scripts_of_other_origins_are_not_allowed_unless_a_setting_names_them(
    open_client: OpenClient, client: AsyncClient
) -> None:
    preflight = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,if-match",
    }
    for answer in (
        await client.options("/wallets", headers=preflight),
        await client.get(UNKNOWN, headers={"Origin": ORIGIN}),
    ):
        assert not any(name.startswith("access-control") for name in answer.headers)
    async with open_client(cors_allow_origins=f"{ORIGIN},https://admin.example") as browser:
        allowed = await browser.options("/wallets", headers=preflight)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert "access-control-allow-credentials" not in allowed.headers
        refused = await browser.get(UNKNOWN, headers={"Origin": ORIGIN})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (404, ORIGIN)
        assert "ETag" in refused.headers["access-control-expose-headers"]
        for other in ("https://evil.example", f"{ORIGIN}.evil.example", "null", "http://app.example"):
            answer = await browser.get(UNKNOWN, headers={"Origin": other})
            assert "access-control-allow-origin" not in answer.headers
            assert (await browser.options("/wallets", headers={**preflight, "Origin": other})).status_code == 400


async def test_the_page_for_people_takes_nothing_from_elsewhere(client: AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "://" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "<script>" not in page.text
    assets = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(assets) == 3
    for asset in assets:
        assert (await client.get(asset)).status_code == 200
    assert 'url: "/openapi.json"' in (await client.get("/docs/start.js")).text


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, 200),
        ({"wallet_api_host": "0.0.0.0", "auth_none_allowed_anywhere": True}, 404),
        ({"wallet_api_host": "0.0.0.0", "auth_none_allowed_anywhere": True, "api_docs": True}, 200),
        ({"api_docs": False}, 404),
    ],
)
async def test_pages_for_people_are_for_loopback_or_by_a_setting(
    open_client: OpenClient, settings: dict[str, Any], status: int
) -> None:
    async with open_client(**settings) as client:
        for path in ("/docs", "/docs/swagger-ui.css", "/openapi.json"):
            assert (await client.get(path)).status_code == status
        assert (await client.get("/redoc")).status_code == 404


async def test_metrics_of_an_api_that_other_machines_reach_need_the_token(
    open_client: OpenClient, assert_problem: AssertProblem
) -> None:
    async with open_client(wallet_api_host="0.0.0.0", auth_none_allowed_anywhere=True) as client:
        assert_problem(await client.get("/metrics"), 403, "forbidden")
    async with open_client(
        wallet_api_host="0.0.0.0", auth_none_allowed_anywhere=True, metrics_token="t" * 32
    ) as client:
        assert_problem(await client.get("/metrics"), 401, "unauthorized")
        read = await client.get("/metrics", headers={"Authorization": "Bearer " + "t" * 32})
        assert read.status_code == 200
        assert [(await client.get(path)).status_code for path in ("/live", "/ready")] == [200, 200]


@pytest.fixture
def port(serve: Callable[..., Any]) -> Iterator[int]:
    with serve() as port:
        yield port


def test_a_body_over_the_cap_is_refused_however_it_is_framed(port: int) -> None:
    body = b" " * 65_537
    chunked = request("POST /wallets HTTP/1.1", [JSON, "Transfer-Encoding: chunked"])
    chunks = b"10001\r\n" + body + b"\r\n0\r\n\r\n"
    assert ask(port, post("/wallets", body, JSON)).status == 413
    assert ask(port, chunked + chunks).status == 413
    claimed = request("POST /wallets HTTP/1.1", [JSON, "Content-Length: 10000000"])
    assert ask(port, claimed + body).status == 413


async def test_requests_beyond_the_limit_move_no_money(
    open_client: OpenClient, client: AsyncClient, new_wallet: NewWallet
) -> None:
    wallet = await new_wallet()
    async with open_client(rate_limit_requests_per_second=0.001, rate_limit_burst_requests=5) as limited:
        sent = [limited.post(f"/wallets/{wallet['id']}/fund", json={"amount": "1"}) for _ in range(20)]
        codes = sorted(answer.status_code for answer in await asyncio.gather(*sent))
    assert codes == [200] * 5 + [429] * 15
    assert (await client.get(f"/wallets/{wallet['id']}")).json()["balance"] == "5.00"
