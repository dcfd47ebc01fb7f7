"""A token is accepted only if its issuer signed it for this API, and it names a user. Everything else is 401."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.access.caller import SCOPES, Caller
from common.access.key_documents import Unusable
from common.access.token_keys import TokenKeys
from common.access.token_settings import JwtSettings
from common.access.tokens import TOKEN_LENGTH_MAX, Refusal, Tokens
from common.background import in_background
from common.checks import WARNING
from common.problems import Problem, Unauthorized, Unavailable
from support.token_issuer import AUDIENCE, ISSUER, claims, jwk, jwks, private_key, public_pem, segment, signed, token

PUBLISHED = jwks(
    jwk("first"), jwk("curve", "ES256"), jwk("edwards", "EdDSA"), {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"}
)
HEADER = {"alg": "RS256", "kid": "first", "typ": "JWT"}
ADA = Caller(f"jwt:{ISSUER} ada", "ada", frozenset({"wallets:read", "wallets:write"}))


class KeptKeys:
    """A source that has a document, and counts how often it is read."""

    name = "JWT_JWKS_URL"
    interval_seconds = 3600.0

    def __init__(self, document: bytes | Unusable, cooldown_seconds: float = 0.0) -> None:
        self.document = document
        self.cooldown_seconds = cooldown_seconds
        self.reads = 0

    async def read(self) -> bytes | Unusable:
        self.reads += 1
        await asyncio.sleep(0)
        return self.document


def settings_of(**changes: Any) -> JwtSettings:
    return JwtSettings(
        **{"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks_url": "https://login.example/jwks", **changes}
    )


@asynccontextmanager
async def opened(source: KeptKeys, **changes: Any) -> AsyncIterator[Tokens]:
    settings = settings_of(**changes)
    keys = TokenKeys(source, settings.algorithms, settings.jwt_jwks_stale_seconds_max)
    async with in_background("jwt_keys", keys.run):
        yield Tokens(settings, keys)


def ask(token: str, **changes: Any) -> Caller | Problem:
    """Return what a token is answered that comes first of all."""

    async def run() -> Caller | Problem:
        # A cooldown that does not end: a key that is unknown after the first read is asked for in vain, at once.
        async with opened(KeptKeys(PUBLISHED, 3600), **changes) as tokens:
            return await tokens.caller_of(token)

    return asyncio.run(run())


def refusal(token: str, **changes: Any) -> str:
    """Return the words with which a token is refused."""
    found = ask(token, **changes)
    assert isinstance(found, Unauthorized)
    return found.detail.removeprefix("Authorization: the token ")


# Tokens are made when a test runs: by the end of a long run, those that were made at its start have expired.
Make = Callable[[], str]


@pytest.mark.parametrize(
    "make",
    [
        token,
        lambda: token("curve", "ES256"),
        lambda: token("edwards", "EdDSA"),
        lambda: token(headers={"typ": "at+jwt"}),
        lambda: token(headers={"typ": "application/AT+JWT"}),
        lambda: token(headers={"typ": None}),
        lambda: token(aud=["other", AUDIENCE]),
        lambda: token(nbf=int(time.time()) + 10, iat=int(time.time()) + 10),
        lambda: token(exp=int(time.time()) - 5),
        lambda: token(exp=time.time() + 600.5),
        lambda: token(exp=10**400),
        lambda: signed({"alg": "RS256"}, claims()),
    ],
)
def test_a_token_of_the_issuer_for_this_api_names_its_caller(make: Make) -> None:
    assert ask(make()) == ADA


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", " none"])
def test_a_token_without_a_signature_is_refused(algorithm: str) -> None:
    content = f"{segment({'alg': algorithm, 'kid': 'first'})}.{segment(claims())}"
    assert refusal(f"{content}.").startswith("is not a signed JWT")
    assert refusal(content).startswith("is not a signed JWT")
    assert refusal(f"{content}.AA").startswith("is signed with an algorithm")
    stripped = token().rpartition(".")[0]
    assert refusal(stripped).startswith("is not a signed JWT")
    assert refusal(f"{stripped}.").startswith("is not a signed JWT")


@pytest.mark.parametrize(
    "make",
    [
        lambda: token()[:-4] + "AAAA",
        lambda: token("curve", "ES256")[:-86] + segment(bytes(64)),
        lambda: token("curve", "ES256")[:-86] + segment(bytes(63)),
        lambda: token("curve", "ES256")[:-86] + "AA",
        lambda: token("edwards", "EdDSA")[:-86] + segment(bytes(64)),
        lambda: token("edwards", "EdDSA")[:-86] + "AA",
        lambda: token("other", headers={"kid": "first"}),
        lambda: token().rpartition(".")[0] + ".AA",
    ],
)
def test_a_wrong_signature_is_refused(make: Make) -> None:
    assert refusal(make()) == "has a wrong signature."


@pytest.mark.parametrize(
    "change",
    [
        lambda good: good + ".AA",
        lambda good: good + "=",
        lambda good: good + "\n",
        lambda good: " " + good,
        lambda good: good.replace(".", ".\u00e9", 1),
        lambda good: good.replace(".", "..", 1),
        lambda _: "\ud800",
        lambda _: "",
        lambda _: "..",
        lambda _: "a.b.c",
        lambda _: json.dumps({"payload": segment(claims()), "signature": ""}),
    ],
)
def test_what_is_not_in_compact_form_is_refused(change: Callable[[str], str]) -> None:
    assert refusal(change(token())).startswith("is not a signed JWT")


def hmac_token(secret: bytes, algorithm: str = "HS256") -> str:
    content = f"{segment({'alg': algorithm, 'kid': 'first'})}.{segment(claims())}"
    digest = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(content.encode(), secret)
    return f"{content}.{segment(digest)}"


@pytest.mark.parametrize("secret", [public_pem("first"), public_pem("first").strip(), jwks(jwk("first")), b"secret"])
def test_a_public_key_is_no_shared_secret(secret: bytes) -> None:
    assert refusal(hmac_token(secret)).startswith("is signed with an algorithm")


@pytest.mark.parametrize(
    "make",
    [
        lambda: token(headers={"kid": "curve"}),
        lambda: token("curve", "ES256", headers={"kid": "first"}),
        lambda: token("edwards", "EdDSA", headers={"kid": "curve"}),
        lambda: signed({**HEADER, "alg": "ES256"}, claims()),
        lambda: signed({**HEADER, "alg": "EdDSA"}, claims()),
    ],
)
def test_a_key_verifies_only_the_algorithms_of_its_type(make: Make) -> None:
    assert refusal(make()) == "is signed with a key that its issuer does not publish."


@pytest.mark.parametrize(
    "algorithm", ["RS384", "PS256", "rs256", "HS256", "ES256K", "RS256 ", None, 256, ["RS256"], {}]
)
def test_an_algorithm_that_the_operator_did_not_name_is_refused(algorithm: Any) -> None:
    assert (
        refusal(signed({**HEADER, "alg": algorithm}, claims())) == "is signed with an algorithm that is not accepted."
    )


@pytest.mark.parametrize(
    "key_id",
    [
        "../../../dev/null",
        "/etc/passwd",
        "https://evil.example/jwks",
        "' OR 1=1 --",
        "first\x00",
        "FIRST",
        "",
        "$(id)",
        "x" * 5000,
    ],
)
def test_a_key_id_is_a_name_and_nothing_else(key_id: str) -> None:
    assert refusal(token(headers={"kid": key_id})) == "is signed with a key that its issuer does not publish."


@pytest.mark.parametrize("key_id", [1, 1.5, True, ["first"], {"kid": "first"}])
def test_a_key_id_that_is_no_text_is_refused(key_id: Any) -> None:
    assert refusal(signed({**HEADER, "kid": key_id}, claims())).startswith("has crit, b64, a typ other than")


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": None},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"typ": "logout+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": "JWE"},
        {"typ": 1},
        {"typ": None},
    ],
)
def test_a_header_that_this_api_does_not_understand_is_refused(header: dict[str, Any]) -> None:
    assert refusal(signed({**HEADER, **header}, claims())).startswith("has crit, b64, a typ other than")


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": jwk("evil")},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/chain.pem"},
        {"x5c": ["MIIB"]},
    ],
)
def test_a_key_in_the_header_is_never_used(header: dict[str, Any]) -> None:
    assert refusal(signed({"alg": "RS256", "kid": "first", **header}, claims(), "evil")) == "has a wrong signature."
    assert refusal(signed({"alg": "RS256", "kid": "evil", **header}, claims(), "evil")).startswith(
        "is signed with a key"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": 1_700_000_000}, "has expired."),
        ({"exp": 0}, "has expired."),
        ({"exp": -1}, "has expired."),
        ({"exp": True}, "has expired."),
        ({"exp": None}, "lacks iss, aud, sub or exp"),
        ({"exp": "10000000000"}, "lacks iss, aud, sub or exp"),
        ({"nbf": 10_000_000_000}, "is not valid yet."),
        ({"iat": 10_000_000_000}, "is not valid yet."),
        ({"nbf": 10**400}, "is not valid yet."),
        ({"iat": "now"}, "lacks iss, aud, sub or exp"),
        ({"iss": "https://evil.example"}, "is of another issuer."),
        ({"iss": ISSUER + "/"}, "is of another issuer."),
        ({"iss": ISSUER[:-1]}, "is of another issuer."),
        ({"iss": [ISSUER]}, "is of another issuer."),
        ({"iss": None}, "lacks iss, aud, sub or exp"),
        ({"aud": "wallets"}, "is for another audience."),
        ({"aud": "wall"}, "is for another audience."),
        ({"aud": []}, "lacks iss, aud, sub or exp"),
        ({"aud": [AUDIENCE, 1]}, "is for another audience."),
        ({"aud": {AUDIENCE: True}}, "is for another audience."),
        ({"aud": None}, "lacks iss, aud, sub or exp"),
        ({"sub": None}, "lacks iss, aud, sub or exp"),
        ({"sub": 1}, "lacks iss, aud, sub or exp"),
        ({"sub": ["ada"]}, "lacks iss, aud, sub or exp"),
        ({"scope": ["wallets:read"]}, "lacks iss, aud, sub or exp"),
        ({"scope": {"wallets:read": True}}, "lacks iss, aud, sub or exp"),
        ({"jti": 1}, "lacks iss, aud, sub or exp"),
        *[
            ({"sub": subject}, "has a sub that is not a user id.")
            for subject in (
                "",
                " ada",
                "ada\n",
                "a\x00b",
                "x" * 65,
                "..",
                "a/../b",
                "ada\u3164",
                "e\u0301",
                "\u202eada",
            )
        ],
    ],
)
def test_a_claim_that_is_wrong_or_missing_is_told_and_refused(changes: dict[str, Any], words: str) -> None:
    # Not by PyJWT, which refuses to sign some of these.
    content = {name: value for name, value in {**claims(), **changes}.items() if value is not None}
    assert refusal(signed(HEADER, content)).startswith(words)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"1e9"', "null", "[9999999999]", "{}"])
def test_a_time_that_is_no_number_is_refused(number: str) -> None:
    for name in ("exp", "nbf", "iat"):
        content = json.dumps({**claims(), name: 0}).replace(f'"{name}": 0', f'"{name}": {number}')
        refusal(signed(HEADER, content.encode()))


def test_a_member_that_comes_twice_is_refused_in_the_header_and_in_the_claims() -> None:
    twice = json.dumps(claims()).encode()[:-1] + b', "sub": "bob"}'
    assert refusal(signed(HEADER, twice)).startswith("is not a signed JWT")
    header = b'{"alg": "none", "kid": "first", "alg": "RS256"}'
    assert refusal(signed(header, claims())).startswith("is not a signed JWT")


@pytest.mark.parametrize(
    "document", [b"[]", b'"text"', b"1", b"", b"\xff", b'{"sub": "\xff"}', b'{"a":' * 2000, b"[" * 5000]
)
def test_what_is_no_json_object_is_refused_however_deep_it_is(document: bytes) -> None:
    assert refusal(signed(HEADER, document)).startswith("is not a signed JWT")
    assert refusal(signed(document, claims())).startswith("is not a signed JWT")


def test_base64_that_is_not_canonical_is_another_token_and_refused() -> None:
    good = token("edwards", "EdDSA")
    # The last character of 86 has 4 bits that say nothing.
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(good[-1])
    other = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last + 1]
    assert refusal(good[:-1] + other).startswith("is not a signed JWT")
    assert ask(good) == ADA


def test_a_long_token_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.access.tokens.hashlib", None)
    assert refusal("A" * 10_000_000).startswith("is not a signed JWT")
    assert refusal("A" * (TOKEN_LENGTH_MAX + 1)).startswith("is not a signed JWT")


def test_a_token_as_long_as_the_limit_is_accepted() -> None:
    def padded(length: int) -> str:
        return token(other="x" * length)

    length = next(n for n in range(5500, 6200) if len(padded(n)) >= TOKEN_LENGTH_MAX - 1)
    assert ask(padded(length)) == ADA


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("", set()),
        ("wallets:read", {"wallets:read"}),
        ("openid  wallets:read profile", {"wallets:read"}),
        (" ".join(SCOPES), set(SCOPES)),
        ("Wallets:read wallets:READ wallets:* *", set()),
        ("wallets:read,funds:write", set()),
        ("wallets:read\tfunds:write", set()),
    ],
)
def test_only_the_scopes_that_the_apis_know_count(scope: str, scopes: set[str]) -> None:
    found = ask(token(scope=scope))
    assert isinstance(found, Caller)
    assert found.scopes == scopes


def test_a_token_without_a_scope_may_do_nothing_and_is_bound() -> None:
    assert ask(token(scope=None)) == Caller(ADA.id, "ada", frozenset())


@pytest.mark.parametrize("scope", ["", " ", "wallets:read", "all-users"])
def test_without_the_setting_every_token_is_bound_to_its_user(scope: str) -> None:
    found = ask(token(scope=scope))
    assert isinstance(found, Caller)
    assert found.user_id == "ada"


@pytest.mark.parametrize(
    ("scope", "user_id"),
    [("wallets:read all-users", None), ("wallets:read all-users2", "ada"), ("wallets:read", "ada"), ("", "ada")],
)
def test_only_a_token_with_the_unbound_scope_acts_for_all_users(scope: str, user_id: str | None) -> None:
    found = ask(token(scope=scope), jwt_unbound_scope="all-users")
    assert isinstance(found, Caller)
    assert (found.user_id, found.id) == (user_id, ADA.id)


def test_a_service_may_have_a_subject_that_is_no_user_id() -> None:
    name = "https://services.example/billing " + "x" * 60
    found = ask(token(sub=name, scope="all-users"), jwt_unbound_scope="all-users")
    assert found == Caller(f"jwt:{ISSUER} {name}", None, frozenset())
    assert refusal(token(sub="a\nb", scope="all-users"), jwt_unbound_scope="all-users").startswith("has a sub")


def test_another_algorithm_counts_where_the_operator_names_it() -> None:
    made = jwt.encode(claims(), private_key("first"), "PS256", {"kid": "first"})
    assert ask(made, jwt_algorithms="PS256") == ADA
    assert refusal(token(), jwt_algorithms="PS256").startswith("is signed with an algorithm")


async def test_a_verified_token_is_remembered_until_the_keys_change(eventually: Callable[..., Any]) -> None:
    source = KeptKeys(PUBLISHED)
    async with opened(source) as tokens:
        assert await tokens.caller_of(token()) == ADA
        source.document = jwks(jwk("second"))

        async def is_removed() -> bool:
            # An unknown key makes the keys be read again.
            await tokens.caller_of(token("unknown"))
            return isinstance(await tokens.caller_of(token()), Unauthorized)

        await eventually(is_removed)
        assert await tokens.caller_of(token("second")) == ADA


async def test_a_verified_token_is_not_remembered_beyond_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(KeptKeys(PUBLISHED)) as tokens:
        made = token()
        assert await tokens.caller_of(made) == ADA
        monkeypatch.setattr(tokens, "_claims", lambda *_: Refusal.EXPIRED)
        assert await tokens.caller_of(made) == ADA
        monkeypatch.setattr("common.access.tokens.time.time", lambda: 1e12)
        assert isinstance(await tokens.caller_of(made), Unauthorized)


async def test_the_memory_of_verified_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.access.tokens._VERIFIED_MAX", 3)
    async with opened(KeptKeys(PUBLISHED)) as tokens:
        for number in range(10):
            assert isinstance(await tokens.caller_of(token("edwards", "EdDSA", sub=f"user-{number}")), Caller)
            assert len(tokens._verified._found) <= 3


async def test_two_keys_with_one_id_are_both_tried() -> None:
    source = KeptKeys(jwks(jwk("first"), jwk("second", kid="first")))
    async with opened(source) as tokens:
        assert await tokens.caller_of(token("second", headers={"kid": "first"})) == ADA
        assert await tokens.caller_of(token("first")) == ADA
        assert isinstance(await tokens.caller_of(token("third", headers={"kid": "first"})), Unauthorized)


async def test_keys_without_an_id_verify_tokens_with_any_id() -> None:
    async with opened(KeptKeys(public_pem("first") + public_pem("curve", "ES256"))) as tokens:
        assert await tokens.caller_of(token("first")) == ADA
        assert await tokens.caller_of(token("curve", "ES256")) == ADA
        assert isinstance(await tokens.caller_of(token("second")), Unauthorized)


async def test_the_state_is_ok_a_warning_or_why_no_token_can_be_verified(eventually: Callable[..., Any]) -> None:
    source = KeptKeys(PUBLISHED)
    async with opened(source) as tokens:
        assert tokens.state() == "JWT_JWKS_URL has not been read yet"
        assert await tokens.caller_of(token()) == ADA
        assert tokens.state() == "ok"
        source.document = Unusable("is away")

        async def is_told() -> bool:
            await tokens.caller_of(token("unknown"))
            return tokens.state() != "ok"

        await eventually(is_told)
        assert tokens.state().startswith(f"{WARNING}JWT_JWKS_URL is away; keys of ")


async def test_while_no_keys_are_known_a_token_is_neither_accepted_nor_called_wrong() -> None:
    async with opened(KeptKeys(Unusable("is away"), 3600)) as tokens:
        found = await tokens.caller_of(token())
        assert isinstance(found, Unavailable)
        assert found.headers()["Retry-After"]


ALPHABET = st.sampled_from("ABCabc019-_.=+/ \n\x00\u00e9")
SEGMENTS = st.one_of(
    st.text(ALPHABET, max_size=40),
    st.binary(max_size=60).map(segment),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
        max_leaves=8,
    ).map(lambda value: segment(json.dumps(value).encode())),
)
HEADERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "cty", "zip"]),
    st.sampled_from(["RS256", "ES256", "EdDSA", "none", "first", "curve", "edwards", "JWT", "", None, True, 1, [], {}]),
).map(lambda header: segment({"alg": "RS256", "kid": "first", **header}))


@given(st.one_of(st.text(), st.lists(SEGMENTS, min_size=1, max_size=5).map(".".join)))
def test_nothing_that_a_client_sends_raises_or_is_accepted(sent: str) -> None:
    assert isinstance(ask(sent), Unauthorized)


@given(HEADERS, SEGMENTS, SEGMENTS)
def test_no_header_in_front_of_a_wrong_signature_raises_or_is_accepted(header: str, payload: str, rest: str) -> None:
    assert isinstance(ask(f"{header}.{payload}.{rest}"), Unauthorized)


@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "scope", "x"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(),
            st.lists(st.text()),
            st.dictionaries(st.text(), st.integers()),
        ),
    )
)
def test_no_claims_under_a_good_signature_raise(changes: dict[str, Any]) -> None:
    found = ask(signed(HEADER, {**claims(), **changes}), jwt_unbound_scope="all-users")
    assert isinstance(found, Caller | Unauthorized)


def test_neither_a_token_nor_its_parts_show_in_a_log_or_an_answer(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    canary = "canary8f1d"
    made = [
        token(sub=canary * 20),
        token(iss=canary),
        token(aud=canary),
        token(headers={"kid": canary}),
        token(headers={"typ": canary}),
        signed({**HEADER, "alg": canary}, claims()),
        canary,
        token(other=canary)[:-4] + "AAAA",
    ]
    told = [repr(ask(bad)) + getattr(ask(bad), "detail", "") for bad in made]
    out, err = capfd.readouterr()
    seen = "".join([*told, out, err, caplog.text])
    assert canary not in seen
    assert segment(canary.encode())[:10] not in seen
    assert not any(part in seen for bad in made for part in bad.split(".") if len(part) > 20)
