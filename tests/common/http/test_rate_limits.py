"""What callers, and addresses with invalid credentials, may send."""

from collections.abc import Callable

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from common.access.caller import ANONYMOUS, Caller
from common.http.authentication import Authentication
from common.http.rate_limits import CallerRateLimit, RefusalLimit
from common.problems import Problem, Unauthorized, Unavailable

NewClient = Callable[..., httpx.AsyncClient]


async def reply(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("done", headers={"ETag": '"1"'})(scope, receive, send)


class Authenticator:
    """Knows two keys, and counts the look-ups."""

    def __init__(self) -> None:
        self.lookup_count = 0
        self.is_away = False

    async def __call__(self, token: str | None) -> Caller | Problem:
        self.lookup_count += 1
        if self.is_away:
            return Unavailable("The database is away.")
        if token in {"ada", "bob"}:
            return Caller(token, None, frozenset())
        return Unauthorized.invalid("unknown")


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator()


def client_of(app: ASGIApp, address: str = "192.0.2.1") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://wallet.test")


def guarded(authenticator: Authenticator, burst: int = 3) -> ASGIApp:
    return Authentication(reply, authenticator, RefusalLimit(0.001, burst))


async def get(client: httpx.AsyncClient, key: str | None, path: str = "/wallets") -> httpx.Response:
    return await client.get(path, headers={"Authorization": f"Bearer {key}"} if key else {})


async def test_an_address_that_sends_wrong_keys_is_answered_429_without_a_look_up(
    authenticator: Authenticator,
) -> None:
    async with client_of(guarded(authenticator)) as client:
        refused = [(await get(client, key)).status_code for key in ("x", "y", None)]
        assert refused == [401, 401, 401]
        beyond = await get(client, "z")
    assert (beyond.status_code, beyond.json()["code"]) == (429, "too-many-requests")
    assert int(beyond.headers["retry-after"]) > 0
    assert authenticator.lookup_count == 3


async def test_valid_credentials_pass_although_other_clients_of_their_address_are_slowed_down(
    authenticator: Authenticator,
) -> None:
    async with client_of(guarded(authenticator)) as client:
        assert (await get(client, "ada")).status_code == 200
        assert [(await get(client, "x")).status_code for _ in range(5)] == [401, 401, 401, 429, 429]
        assert (await get(client, "ada")).status_code == 200


def test_credentials_that_are_valid_no_more_are_slowed_down_like_any_other() -> None:
    limit = RefusalLimit(0.001, 2)
    scope: Scope = {"client": ("192.0.2.1", 1)}
    limit.note_valid("revoked")
    for _ in range(2):
        assert limit.refusal(scope, "revoked") is None
        limit.note_refused(scope, "revoked")
    assert limit.refusal(scope, "revoked") is not None


async def test_another_address_is_not_slowed_down(authenticator: Authenticator) -> None:
    app = guarded(authenticator)
    async with client_of(app) as one, client_of(app, "192.0.2.2") as other:
        assert [(await get(one, "x")).status_code for _ in range(4)][-1] == 429
        assert (await get(other, "x")).status_code == 401


async def test_a_database_that_is_away_is_not_the_clients_failure(authenticator: Authenticator) -> None:
    authenticator.is_away = True
    async with client_of(guarded(authenticator)) as client:
        assert {(await get(client, "ada")).status_code for _ in range(10)} == {503}
        authenticator.is_away = False
        assert (await get(client, "ada")).status_code == 200


async def test_probes_and_pages_for_people_have_no_caller_and_are_never_slowed_down(
    authenticator: Authenticator,
) -> None:
    async with client_of(guarded(authenticator)) as client:
        assert [(await get(client, "x")).status_code for _ in range(4)][-1] == 429
        for path in ("/live", "/ready", "/metrics", "/docs", "/openapi.json"):
            assert (await get(client, None, path)).status_code == 200
    assert authenticator.lookup_count == 3


async def test_each_caller_has_its_own_limit_and_every_reply_tells_it(authenticator: Authenticator) -> None:
    app = Authentication(CallerRateLimit(reply, 0.5, 2), authenticator, RefusalLimit(1, 1))
    async with client_of(app) as client:
        first, second, third = [await get(client, "ada") for _ in range(3)]
        other = await get(client, "bob")
    assert [each.status_code for each in (first, second, third, other)] == [200, 200, 429, 200]
    assert [each.headers["ratelimit"] for each in (first, other)] == ['"caller";r=1;t=2'] * 2
    assert {each.headers["ratelimit-policy"] for each in (first, second, third)} == {'"caller";q=2;w=4'}
    assert third.headers["ratelimit"].startswith('"caller";r=0;')
    assert (third.json()["code"], third.headers["retry-after"]) == ("too-many-requests", "2")
    assert first.headers["etag"] == '"1"'


async def test_where_authentication_is_off_each_address_is_a_caller() -> None:
    async def anonymous(_: str | None) -> Caller:
        return ANONYMOUS

    app = Authentication(CallerRateLimit(reply, 0.001, 1), anonymous, RefusalLimit(1, 1))
    async with client_of(app) as one, client_of(app, "192.0.2.2") as other:
        assert [(await get(one, None)).status_code for _ in range(2)] == [200, 429]
        assert (await get(other, None)).status_code == 200
        assert (await get(one, None, "/ready")).status_code == 200
