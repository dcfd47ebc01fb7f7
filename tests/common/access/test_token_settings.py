"""Settings of JWTs that contradict one another, or are not enough, stop the process with one line."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.access.caller import SCOPES
from common.access.token_settings import JwtSettings
from support.token_issuer import AUDIENCE, ISSUER, jwk, jwks, public_pem

GOOD: dict[str, Any] = {
    "jwt_issuer": ISSUER,
    "jwt_audience": AUDIENCE,
    "jwt_jwks_url": "https://login.example/jwks?policy=1",
}


def refusal(**changes: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        JwtSettings(**{**GOOD, **changes})
    (error,) = refused.value.errors()
    assert "\n" not in error["msg"]
    return f"{''.join(str(part) for part in error['loc'])} {error['msg']}"


def test_without_any_setting_there_are_no_jwts() -> None:
    assert not JwtSettings().has_jwt
    assert JwtSettings(**GOOD).has_jwt


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jwt_issuer": ""}, "JWT_ISSUER: is required"),
        ({"jwt_audience": ""}, "JWT_AUDIENCE: is required"),
        ({"jwt_jwks_url": ""}, "JWT_JWKS_URL or JWT_JWKS_FILE: one of them is required, and not both"),
        ({"jwt_issuer": "a b"}, "jwt_issuer"),
        ({"jwt_issuer": "x" * 256}, "jwt_issuer"),
        ({"jwt_audience": "a\nb"}, "jwt_audience"),
        ({"jwt_leeway_seconds": 301}, "jwt_leeway_seconds"),
        ({"jwt_leeway_seconds": -1}, "jwt_leeway_seconds"),
        ({"jwt_jwks_refresh_seconds": 1}, "jwt_jwks_refresh_seconds"),
        ({"jwt_jwks_file": "/nowhere/jwks.json", "jwt_jwks_url": ""}, "JWT_JWKS_FILE: cannot be read: No such file"),
        *[({"jwt_unbound_scope": scope}, "must be a scope of its own") for scope in SCOPES],
        *[({"jwt_unbound_scope": scope}, "must be one scope") for scope in ("a b", 'a"', "a\\b", "\u00e9", "\n")],
        *[
            ({"jwt_algorithms": names}, "is not accepted; name some of RS256")
            for names in ("none", "HS256", "RS256,HS256", "RS256,", "rs256", "ES256K", "RS256;ES256")
        ],
        *[
            ({"jwt_jwks_url": url}, "jwt_jwks_url")
            for url in (
                "file:///etc/passwd",
                "ftp://login.example/jwks",
                "http://login.example/jwks",
                "http://127.0.0.1.evil.example/jwks",
                "http://10.0.0.1/jwks",
                "https://user:password@login.example/jwks",
                "https://login.example/jwks#fragment",
                "https:///jwks",
                "login.example/jwks",
                "https://[::1/jwks",
                "https://login.example:99999/jwks",
            )
        ],
    ],
    ids=str,
)
def test_a_setting_that_is_missing_or_wrong_is_named(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(**changes)


def test_the_password_of_a_refused_url_is_not_shown() -> None:
    with pytest.raises(ValidationError) as refused:
        JwtSettings(**{**GOOD, "jwt_jwks_url": "https://user:canary@login.example/jwks"})
    assert "canary" not in refused.value.errors()[0]["msg"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/jwks", "http://[::1]/jwks", "http://localhost/jwks"])
def test_plain_http_is_allowed_on_loopback(url: str) -> None:
    assert JwtSettings(**{**GOOD, "jwt_jwks_url": url}).jwt_jwks_url == url


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"garbage", "JWT_JWKS_FILE: is neither a JWKS"),
        (jwks(), "JWT_JWKS_FILE: has no key for RS256,ES256,EdDSA"),
        (jwks({"kty": "oct", "k": "c2VjcmV0"}), "JWT_JWKS_FILE: has no key for"),
    ],
)
def test_a_file_without_a_usable_key_stops_the_process(tmp_path: Path, document: bytes, words: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(document)
    assert words in refusal(jwt_jwks_file=path, jwt_jwks_url="")


@pytest.mark.parametrize("document", [jwks(jwk("first")), public_pem("first")])
def test_a_file_is_a_jwks_or_pem_and_not_beside_a_url(tmp_path: Path, document: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(document)
    assert JwtSettings(**{**GOOD, "jwt_jwks_url": "", "jwt_jwks_file": path}).has_jwt
    assert "and not both" in refusal(jwt_jwks_file=path)
