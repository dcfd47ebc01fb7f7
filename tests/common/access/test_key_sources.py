"""Keys come from the place that the operator named, within bounds; while it is away, the old ones are used."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import trustme
from prometheus_client import REGISTRY

from common.access import key_sources
from common.access.caller import Caller
from common.access.key_documents import DOCUMENT_BYTES_MAX, Unusable
from common.access.key_sources import JwksUrl, KeysFile
from common.access.token_keys import TokenKeys
from common.access.token_settings import JwtSettings
from common.access.tokens import Tokens
from common.background import in_background
from common.pauses import Pauses
from common.problems import Unauthorized, Unavailable
from support.ports import free_port
from support.token_issuer import AUDIENCE, ISSUER, JwksServer, jwk, jwks, token

Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
async def server() -> AsyncIterator[JwksServer]:
    async with JwksServer() as server:
        server.publish(jwk("first"))
        yield server


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read again at once after a failure."""
    monkeypatch.setattr("common.access.token_keys._FAILURE_PAUSES", Pauses(0.01, 0.01))


@asynccontextmanager
async def opened(
    source: JwksUrl | KeysFile, stale_seconds_max: float = 3600, clock: Callable[[], float] = monotonic
) -> AsyncIterator[tuple[Tokens, TokenKeys]]:
    settings = JwtSettings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_jwks_url="https://login.example/jwks")
    keys = TokenKeys(source, settings.algorithms, stale_seconds_max, clock)
    async with in_background("jwt_keys", keys.run):
        yield Tokens(settings, keys), keys


async def test_the_document_is_read_with_one_request_that_has_no_credentials(server: JwksServer) -> None:
    assert await JwksUrl(server.url, 300).read() == jwks(jwk("first"))
    (head,) = server.requests
    assert head.startswith(b"GET /jwks HTTP/1.1\r\n")
    assert b"authorization" not in head.lower()
    assert b"cookie" not in head.lower()


async def test_a_redirect_is_not_followed(server: JwksServer) -> None:
    async with JwksServer() as other:
        other.publish(jwk("evil"))
        for status in ("301 Moved Permanently", "302 Found", "307 Temporary Redirect"):
            server.answer(b"", status, f"Location: {other.url}\r\n")
            found = await JwksUrl(server.url, 300).read()
            assert found == Unusable(f"answers {status[:3]} instead of 200")
        assert other.requests == []


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error", "204 No Content"])
async def test_another_status_is_a_failure(server: JwksServer, status: str) -> None:
    server.answer(b"" if status.startswith("204") else jwks(jwk("first")), status)
    assert await JwksUrl(server.url, 300).read() == Unusable(f"answers {status[:3]} instead of 200")


async def test_a_large_reply_is_read_no_further_than_the_limit(server: JwksServer) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.reply = head + b"10000\r\n" + b"x" * 65536 + b"\r\n"
    server.reply += (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 100
    assert await JwksUrl(server.url, 300).read() == Unusable(f"has more than {DOCUMENT_BYTES_MAX} bytes")


async def test_a_compressed_reply_is_not_unpacked(server: JwksServer) -> None:
    server.answer(b"\x1f\x8b" + bytes(100), head="Content-Encoding: gzip\r\n")
    assert await JwksUrl(server.url, 300).read() == b"\x1f\x8b" + bytes(100)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"])
async def test_a_server_that_is_silent_is_not_waited_for(
    server: JwksServer, reply: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sources, "READ_TIMEOUT_SECONDS", 0.05)
    server.reply = reply
    server.allowed.clear()
    assert await JwksUrl(server.url, 300).read() == Unusable("gave no whole reply within 0.05 s")


async def test_a_server_that_is_away_or_speaks_something_else_is_told(server: JwksServer) -> None:
    found = await JwksUrl(f"http://127.0.0.1:{free_port()}/jwks", 300).read()
    assert isinstance(found, Unusable)
    assert found.reason.startswith("cannot be reached: ")
    server.reply = b"SSH-2.0-OpenSSH\r\n"
    found = await JwksUrl(server.url, 300).read()
    assert isinstance(found, Unusable)


async def test_an_address_that_is_none_is_told() -> None:
    found = await JwksUrl(f"https://{'a' * 300}.example/jwks", 300).read()
    assert isinstance(found, Unusable)
    assert found.reason.startswith("cannot be reached: ")


async def test_a_server_without_tls_is_no_https_server() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        found = await JwksUrl(f"https://127.0.0.1:{port}/jwks", 300).read()
    assert isinstance(found, Unusable)
    assert found.reason.startswith("cannot be reached: ")


async def test_plain_http_on_loopback_goes_through_no_proxy(
    server: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with JwksServer() as proxy:
        proxy.publish(jwk("evil"))
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert await JwksUrl(server.url, 300).read() == jwks(jwk("first"))
        assert proxy.requests == []


async def test_the_certificate_of_the_server_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with JwksServer(ssl_context=context) as server:
        server.publish(jwk("first"))
        found = await JwksUrl(server.url, 300).read()
        assert isinstance(found, Unusable)
        assert "certificate verify failed" in found.reason.lower()
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        assert await JwksUrl(server.url, 300).read() == jwks(jwk("first"))
        other = server.url.replace("127.0.0.1", "localhost")
        found = await JwksUrl(other, 300).read()
        assert isinstance(found, Unusable)


async def test_many_tokens_with_unknown_keys_cause_one_request(server: JwksServer) -> None:
    source = JwksUrl(server.url, 3600)
    async with opened(source) as (tokens, _):
        assert isinstance(await tokens.caller_of(token()), Caller)
        assert len(server.requests) == 1
        storm = [tokens.caller_of(token("second", headers={"kid": f"unknown-{number}"})) for number in range(200)]
        assert all(isinstance(found, Unauthorized) for found in await asyncio.gather(*storm))
        assert len(server.requests) == 1, "within the cooldown of the first read"

        source.cooldown_seconds = 0
        server.allowed.clear()
        waiting = [asyncio.create_task(tokens.caller_of(token("second"))) for _ in range(20)]
        await asyncio.sleep(0)
        server.publish(jwk("second"))
        server.allowed.set()
        assert all(isinstance(found, Caller) for found in await asyncio.gather(*waiting))
        assert len(server.requests) == 2


async def test_tokens_that_wait_for_keys_do_not_take_all_places(
    server: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.access.token_keys._WAITING_MAX", 2)
    source = JwksUrl(server.url, 3600)
    async with opened(source) as (tokens, _):
        assert isinstance(await tokens.caller_of(token()), Caller)
        source.cooldown_seconds = 0
        server.allowed.clear()
        waiting = [asyncio.create_task(tokens.caller_of(token("second"))) for _ in range(2)]
        await asyncio.sleep(0)
        assert isinstance(await tokens.caller_of(token("second")), Unauthorized)
        assert not any(task.done() for task in waiting)
        server.allowed.set()
        await asyncio.gather(*waiting)


async def test_a_token_is_not_called_wrong_before_the_first_read(server: JwksServer) -> None:
    server.allowed.clear()
    async with opened(JwksUrl(server.url, 3600)) as (tokens, keys):
        early = asyncio.create_task(tokens.caller_of(token()))
        await asyncio.sleep(0)
        assert not keys.are_known
        server.allowed.set()
        assert isinstance(await early, Caller)
        assert keys.trouble == ""


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"garbage", "200 OK", "is neither a JWKS"),
        (b"{}", "200 OK", "is JSON without a list"),
        (b"", "503 Service Unavailable", "answers 503"),
    ],
)
@pytest.mark.usefixtures("quick")
async def test_old_keys_are_used_while_the_server_has_none_and_a_gauge_and_the_state_tell_it(
    server: JwksServer, eventually: Eventually, body: bytes, status: str, reason: str
) -> None:
    async with opened(JwksUrl(server.url, 0.01)) as (tokens, keys):
        assert isinstance(await tokens.caller_of(token()), Caller)
        server.answer(body, status)

        async def is_told() -> bool:
            return f"JWT_JWKS_URL {reason}" in keys.trouble and REGISTRY.get_sample_value("jwt_keys_stale") == 1

        await eventually(is_told)
        assert "s ago are used" in keys.trouble
        assert keys.are_known
        assert isinstance(await tokens.caller_of(token(sub="bob")), Caller)
        server.publish(jwk("first"))

        async def is_well() -> bool:
            return keys.trouble == "" and REGISTRY.get_sample_value("jwt_keys_stale") == 0

        await eventually(is_well)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.usefixtures("quick")
async def test_keys_that_are_too_old_are_not_used(server: JwksServer, eventually: Eventually) -> None:
    clock = Clock()
    async with opened(JwksUrl(server.url, 0.01), stale_seconds_max=60, clock=clock) as (tokens, keys):
        made = token()
        assert isinstance(await tokens.caller_of(made), Caller)
        server.answer(b"", "503 Service Unavailable")

        async def is_told() -> bool:
            return bool(keys.trouble)

        await eventually(is_told)
        assert isinstance(await tokens.caller_of(made), Caller)
        clock.seconds = 61

        async def is_unknown() -> bool:
            return keys.trouble == keys.state() == "JWT_JWKS_URL answers 503 instead of 200"

        await eventually(is_unknown)
        assert isinstance(await tokens.caller_of(made), Unavailable)


async def test_keys_that_are_too_old_are_not_used_while_a_read_hangs(server: JwksServer) -> None:
    clock = Clock()
    async with opened(JwksUrl(server.url, 3600), stale_seconds_max=60, clock=clock) as (tokens, keys):
        made = token()
        assert isinstance(await tokens.caller_of(made), Caller)
        server.allowed.clear()
        clock.seconds = 61
        asked = asyncio.create_task(tokens.caller_of(made))
        while not asked.done() and len(server.requests) < 2:
            await asyncio.sleep(0.01)
        assert not keys.are_known
        assert keys.state() == "JWT_JWKS_URL has not been read for 60 s"
        assert not asked.done()
        server.allowed.set()
        assert isinstance(await asked, Caller)


async def test_a_removed_key_stops_working_at_the_next_read_and_a_new_one_works(
    server: JwksServer, eventually: Eventually
) -> None:
    async with opened(JwksUrl(server.url, 0.01)) as (tokens, keys):
        old, new = token("first"), token("second")
        assert isinstance(await tokens.caller_of(old), Caller)
        server.publish(jwk("first"), jwk("second"))

        async def is_new() -> bool:
            return isinstance(await tokens.caller_of(new), Caller)

        await eventually(is_new)
        assert isinstance(await tokens.caller_of(old), Caller)
        server.publish(jwk("second"))

        async def is_removed() -> bool:
            return isinstance(await tokens.caller_of(old), Unauthorized)

        await eventually(is_removed)
        assert isinstance(await tokens.caller_of(new), Caller)
        server.publish()

        async def is_empty() -> bool:
            return isinstance(await tokens.caller_of(new), Unauthorized)

        await eventually(is_empty)
        assert keys.trouble == "JWT_JWKS_URL has no key for RS256, ES256, EdDSA"


async def test_a_file_that_changes_is_read_again(tmp_path: Path, eventually: Eventually) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("first")))
    source = KeysFile(path)
    source.interval_seconds = 0.01
    async with opened(source) as (tokens, keys):
        assert isinstance(await tokens.caller_of(token("first")), Caller)
        path.write_bytes(jwks(jwk("second")))

        async def is_changed() -> bool:
            return isinstance(await tokens.caller_of(token("second")), Caller)

        await eventually(is_changed)
        assert isinstance(await tokens.caller_of(token("first")), Unauthorized)
        path.unlink()

        async def is_told() -> bool:
            return keys.trouble.startswith("JWT_JWKS_FILE cannot be read: No such file or directory; keys of ")

        await eventually(is_told)
        assert isinstance(await tokens.caller_of(token("second")), Caller)


async def test_a_large_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(b"x" * (DOCUMENT_BYTES_MAX + 1))
    assert await KeysFile(path).read() == Unusable(f"has more than {DOCUMENT_BYTES_MAX} bytes")
