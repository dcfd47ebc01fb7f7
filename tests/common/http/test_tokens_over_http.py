"""Both APIs let in the JWTs of the configured issuer, alone or beside API keys."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from common.tables.roles import Role
from history_consumer.read_api.app import create_app as create_history_app
from history_consumer.settings import HistoryApiSettings
from support.api_keys import KEY, bearer, refusals
from support.applications import client_of
from support.roles import ROLES
from support.token_issuer import AUDIENCE, ISSUER, JwksServer, claims, jwk, segment, token
from wallet_api.app import create_app
from wallet_api.settings import WalletApiSettings

Eventually = Callable[..., Awaitable[Any]]
PATHS = {"wallet": "/wallets/0198c2a5-0000-7000-8000-000000000001", "history": "/history/users/ada"}
LET_IN = {"wallet": 404, "history": 200}
"""What a caller is answered there who was let in: the wallet does not exist."""


@pytest.fixture
async def server() -> AsyncIterator[JwksServer]:
    async with JwksServer() as server:
        server.publish(jwk("first"))
        yield server


@asynccontextmanager
async def api(name: str, url: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Start an API without a socket, as its role, and return a client of it."""
    logged_in = ROLES.url(url, Role.API if name == "wallet" else Role.READER)
    given = {
        "database_url": logged_in,
        "log_level": "warning",
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        **settings,
    }
    app = (
        create_app(WalletApiSettings(**given)) if name == "wallet" else create_history_app(HistoryApiSettings(**given))
    )
    async with client_of(app, "http://api.test") as client:
        yield client


@pytest.mark.parametrize("name", ["wallet", "history"])
async def test_a_token_is_let_in_and_an_api_key_only_where_both_are_accepted(
    name: str, database_url: str, server: JwksServer
) -> None:
    made = token(scope="wallets:read history:read")
    for auth, accepts_keys in (("jwt", False), ("keys,jwt", True)):
        async with api(name, database_url, auth=auth, jwt_jwks_url=server.url) as client:
            assert (await client.get(PATHS[name], headers=bearer(made))).status_code == LET_IN[name]
            with_a_key = (await client.get(PATHS[name], headers=bearer(KEY))).status_code
            assert with_a_key == (LET_IN[name] if accepts_keys else 401)
            assert (await client.get(PATHS[name])).status_code == 401


async def test_a_token_is_bound_to_its_user_unless_it_has_the_unbound_scope(
    database_url: str, server: JwksServer
) -> None:
    scope = "wallets:read wallets:write"
    settings = {"auth": "jwt", "jwt_jwks_url": server.url, "jwt_unbound_scope": "all-users"}
    async with api("wallet", database_url, **settings) as client:
        ada, bob, service = (
            bearer(token(sub=subject, scope=f"{scope}{more}"))
            for subject, more in (("ada", ""), ("bob", ""), ("service", " all-users"))
        )
        created = await client.post("/wallets", json={"user_id": "ada", "currency": "EUR"}, headers=ada)
        path = f"/wallets/{created.json()['id']}"
        read = {who: await client.get(path, headers=headers) for who, headers in (("ada", ada), ("bob", bob))}
        assert (created.status_code, read["ada"].status_code, read["bob"].status_code) == (201, 200, 404)
        assert (await client.get(path, headers=service)).status_code == 200
        of_another = await client.post("/wallets", json={"user_id": "ada", "currency": "USD"}, headers=bob)
        assert (of_another.status_code, of_another.json()["code"]) == (403, "forbidden")
        fund = await client.post(f"{path}/fund", json={"amount": "1"}, headers=ada)
        assert (fund.status_code, fund.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("name", ["wallet", "history"])
async def test_a_token_that_is_refused_reaches_no_route_and_the_client_learns_why(
    name: str, database_url: str, server: JwksServer
) -> None:
    refused = {
        "jwt-expired": (token(exp=1), "has expired."),
        "jwt-signature": (token("second", headers={"kid": "first"}), "has a wrong signature."),
        "jwt-audience": (token(aud="other"), "is for another audience."),
        "jwt-malformed": (f"{segment({'alg': 'none'})}.{segment(claims())}.", "is not a signed JWT"),
        "jwt-algorithm": (f"{segment({'alg': 'none'})}.{segment(claims())}.AA", "is signed with an algorithm"),
    }
    async with api(name, database_url, auth="jwt", jwt_jwks_url=server.url) as client:
        for reason, (bad, words) in refused.items():
            before = refusals(reason)
            answer = await client.get(PATHS[name], headers=bearer(bad))
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert answer.json()["detail"].startswith(f"Authorization: the token {words}")
            assert answer.headers["www-authenticate"] == 'Bearer realm="wallet", error="invalid_token"'
            assert not any(part in answer.text for part in bad.split(".") if part)
            assert refusals(reason) == before + 1


async def test_a_long_token_is_refused_by_the_api(database_url: str, server: JwksServer) -> None:
    async with api("wallet", database_url, auth="jwt", jwt_jwks_url=server.url) as client:
        assert (await client.get(PATHS["wallet"], headers=bearer("A" * 9000))).status_code == 401
        assert (await client.get(PATHS["wallet"], headers=bearer("A" * 10_000_000))).status_code in {401, 431}


@pytest.mark.parametrize("name", ["wallet", "history"])
async def test_ready_tells_of_keys_that_cannot_be_read(
    name: str, database_url: str, server: JwksServer, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.access.key_sources.JwksUrl.cooldown_seconds", 0.0)
    async with api(name, database_url, auth="jwt", jwt_jwks_url=server.url) as client:

        async def is_ready() -> bool:
            return (await client.get("/ready")).status_code == 200

        await eventually(is_ready)
        assert (await client.get("/ready")).json()["checks"]["jwt"] == "ok"
        server.answer(b"", "500 Internal Server Error")
        # A token with an unknown key makes the API read the keys.
        assert (await client.get(PATHS[name], headers=bearer(token("second")))).status_code == 401
        ready = await client.get("/ready")
        assert ready.status_code == 200
        assert ready.json()["checks"]["jwt"].startswith("warning: JWT_JWKS_URL answers 500 instead of 200; keys of ")


async def test_while_no_keys_are_known_the_api_is_not_ready_and_tokens_are_answered_503(
    database_url: str, server: JwksServer
) -> None:
    server.answer(b"", "404 Not Found")
    async with api("wallet", database_url, auth="keys,jwt", jwt_jwks_url=server.url) as client:
        answer = await client.get(PATHS["wallet"], headers=bearer(token()))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await client.get(PATHS["wallet"], headers=bearer(KEY))).status_code == 404
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["checks"]["jwt"]) == (503, "JWT_JWKS_URL answers 404 instead of 200")
