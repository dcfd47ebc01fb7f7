"""Which requests get in, and what the others are told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access import key_store
from common.access.api_keys import key_text
from common.access.caller import SCOPES
from common.access.key_acts import create_key, revoke_key
from common.http import authentication
from common.http.bearer import bearer_token
from common.http.server import background_server
from common.rate_limited_logs import RateLimiter
from common.tables.roles import Role
from history_consumer.read_api.app import create_app as create_history_app
from history_consumer.settings import HistoryApiSettings
from support.api_keys import KEY, bearer, refusals
from support.applications import client_of
from support.ports import free_port
from support.raw_http import Client, post, request
from support.roles import Roles
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings

UNKNOWN = key_text("test", "0" * 12, 4711)
PATHS = ("/wallets?user_id=ada", "/wallets/0198c2a5-0000-7000-8000-000000000001", "/nonsense")


@pytest.fixture(params=["wallet", "history"])
async def api(request: pytest.FixtureRequest, database_url: str, roles: Roles) -> AsyncIterator[httpx.AsyncClient]:
    """Each API in turn, with keys on and as its role, and a client without a key."""
    if request.param == "wallet":
        app = create_app(WalletApiSettings(database_url=roles.url(database_url, Role.API), log_level="warning"))
    else:
        url = roles.url(database_url, Role.READER)
        app = create_history_app(HistoryApiSettings(database_url=url, log_level="warning"))
    async with client_of(app, "http://api.test") as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_key_no_route_is_reached(api: httpx.AsyncClient, path: str) -> None:
    before = refusals("no-credentials")
    for method in ("GET", "POST", "HEAD", "PUT"):
        refused = await api.request(method, path)
        assert refused.status_code == 401
        # RFC 6750, section 3.1: no error code for a request without credentials.
        assert refused.headers["www-authenticate"] == 'Bearer realm="wallet"'
        if method != "HEAD":
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["code"] == "unauthorized"
    assert refusals("no-credentials") == before + 4


@pytest.mark.parametrize("path", ["/live", "/ready"])
async def test_probes_are_open(api: httpx.AsyncClient, path: str) -> None:
    assert (await api.get(path)).status_code == 200


@pytest.mark.parametrize(
    "authorization", ["Basic YWRhOmFkYQ==", "Bearer", "Bearer ", f"Bearer{KEY}", f"Token {KEY}", KEY, f'Bearer "{KEY}"']
)
async def test_credentials_of_another_form_are_none(api: httpx.AsyncClient, authorization: str) -> None:
    assert (await api.get("/nonsense", headers={"Authorization": authorization})).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
async def test_the_name_of_the_scheme_has_any_case(api: httpx.AsyncClient, scheme: str) -> None:
    reached = await api.get("/nonsense", headers={"Authorization": f"{scheme} {KEY}"})
    assert reached.json()["code"] == "not-found"


async def test_a_key_that_is_unknown_expired_revoked_or_wrong_is_refused_in_the_same_bytes(
    api: httpx.AsyncClient, operator: AsyncEngine
) -> None:
    revoked = await create_key(operator, "test", "revoked", SCOPES)
    await revoke_key(operator, revoked.id, None)
    expired = await create_key(operator, "test", "expired", SCOPES, expires_in_days=0)
    wrong = key_text("test", KEY.split("_")[2], 4711)
    replies = [await api.get("/nonsense", headers=bearer(key)) for key in (UNKNOWN, revoked.text, expired.text, wrong)]
    assert {reply.status_code for reply in replies} == {401}
    assert len({(reply.content, str(sorted(reply.headers.items()))) for reply in replies}) == 1
    assert replies[0].headers["www-authenticate"] == 'Bearer realm="wallet", error="invalid_token"'


async def test_two_authorization_headers_are_refused(api: httpx.AsyncClient) -> None:
    for other in (KEY, UNKNOWN):
        lines = [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {other}")]
        refused = await api.get("/nonsense", headers=lines)
        assert (refused.status_code, refused.json()["code"]) == (400, "bad-request")


async def test_the_body_of_a_refused_request_does_not_run_as_a_request(
    database_url: str, roles: Roles, engine: AsyncEngine
) -> None:
    app = create_app(WalletApiSettings(database_url=roles.url(database_url, Role.API), log_level="warning"))
    wallet = b'{"user_id": "ada", "currency": "EUR"}'
    inner = post("/wallets", wallet, "Content-Type: application/json", f"Authorization: Bearer {KEY}")

    def ask() -> list[int]:
        with Client(port) as raw:
            return [raw.send(sent).reply().status for sent in (post("/wallets", inner), request("GET /live HTTP/1.1"))]

    server = background_server(app, "127.0.0.1", port := free_port())
    async with app.router.lifespan_context(app):
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(ask) == [401, 200]
        server.should_exit = True
        await serving
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM wallet.wallets")) == 0


async def test_while_the_keys_can_not_be_read_only_the_probes_are_answered(
    api: httpx.AsyncClient,
    engine: AsyncEngine,
    eventually: Callable[..., Awaitable[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The five seconds are over at once.
    monkeypatch.setattr(key_store, "REVOKED_SECONDS_MAX", 0.0)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE wallet.api_keys RENAME TO moved"))

    async def is_unready() -> bool:
        ready = await api.get("/ready")
        return ready.status_code == 503 and "db migrate" in ready.json()["checks"]["api_keys"]

    await eventually(is_unready)
    refused = await api.get("/nonsense", headers=bearer(KEY))
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert refused.headers["retry-after"] == "1"
    assert (await api.get("/live")).status_code == 200


async def test_a_history_in_another_database_has_the_keys_of_the_wallet_database(
    database_url: str, roles: Roles, operator: AsyncEngine, new_database: Callable[[str | None], str], template: str
) -> None:
    settings = HistoryApiSettings(
        database_url=roles.url(database_url, Role.READER),
        history_database_url=roles.url(new_database(template), Role.READER),
        log_level="warning",
    )
    key = await create_key(operator, "test", "in one of them", SCOPES)
    app = create_history_app(settings)
    async with client_of(app, "http://api.test") as client:
        assert (await client.get("/history/users/ada", headers=bearer(key.text))).status_code == 200


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc", "abc"),
        (b"bEARER abc", "abc"),
        (b"Bearer   abc  ", "abc"),
        (b"Bearer a b", "a b"),
        (b"Bearer \xff", "\xff"),
        (b"Bearer", ""),
        (b"Basic abc", None),
        (b"", None),
    ],
)
def test_the_token_is_what_follows_the_scheme(value: bytes, token: str | None) -> None:
    assert bearer_token([(b"host", b"x"), (b"authorization", value)]) == token
    assert bearer_token([(b"host", b"x")]) is None


async def test_no_part_of_a_key_is_in_a_log_a_metric_an_answer_or_a_repr(
    api: httpx.AsyncClient,
    operator: AsyncEngine,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authentication.log, "_limiter", RateLimiter())
    valid = await create_key(operator, "test", "canary", SCOPES)
    wrong = key_text("test", valid.id, 4711)
    secrets = [key.split("_")[3] for key in (valid.text, wrong, UNKNOWN)]
    replies = [
        await api.get(path, headers=bearer(key))
        for key in (valid.text, wrong, UNKNOWN, wrong[:-1])
        for path in (*PATHS, "/metrics", "/ready")
    ]
    said = "".join(f"{reply.headers} {reply.text}" for reply in replies) + caplog.text + repr(valid)
    assert "api_key_refused" in said
    assert [secret for secret in secrets if secret in said] == []
