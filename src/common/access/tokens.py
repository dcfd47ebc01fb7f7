"""JSON Web Tokens (RFC 7519) as bearer tokens: which caller a token names. RFC 8725 and 9068 say what to check."""

import hashlib
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

import jiter
import jwt

from common.access.caller import SCOPES, Caller
from common.access.key_sources import JwksUrl, KeysFile, KeySource
from common.access.token_keys import TokenKeys
from common.access.token_settings import JwtSettings
from common.background import in_background
from common.problems import Problem, Unauthorized, Unavailable
from common.text import check_new_user_id

TOKEN_LENGTH_MAX: Final = 8192
_VERIFIED_MAX: Final = 4096
_SUBJECT_LENGTH_MAX: Final = 255

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# An access token has a type of its own (RFC 9068), or the general one. Others are no credentials: `logout+jwt`, …
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_KNOWN_SCOPES: Final = frozenset(SCOPES)


class Refusal(StrEnum):
    """Why a token is refused: the reason in the metric, and what a client reads after "the token"."""

    text: str

    def __new__(cls, reason: str, text: str) -> Self:
        """Return a member whose value is the reason."""
        member = str.__new__(cls, reason)
        member._value_ = reason
        member.text = text
        return member

    MALFORMED = "malformed", f"is not a signed JWT in compact form with at most {TOKEN_LENGTH_MAX} characters"
    HEADER = "header", "has crit, b64, a typ other than JWT or at+jwt, or a kid that is no text in its header"
    ALGORITHM = "algorithm", "is signed with an algorithm that is not accepted"
    KEY = "key", "is signed with a key that its issuer does not publish"
    SIGNATURE = "signature", "has a wrong signature"
    EXPIRED = "expired", "has expired"
    NOT_YET_VALID = "not-yet-valid", "is not valid yet"
    ISSUER = "issuer", "is of another issuer"
    AUDIENCE = "audience", "is for another audience"
    CLAIMS = "claims", "lacks iss, aud, sub or exp, or has a claim of a wrong type"
    SUBJECT = "subject", "has a sub that is not a user id"


_REFUSALS: Final = (
    (jwt.InvalidSignatureError, Refusal.SIGNATURE),
    (jwt.ExpiredSignatureError, Refusal.EXPIRED),
    (jwt.ImmatureSignatureError, Refusal.NOT_YET_VALID),
    (jwt.InvalidIssuerError, Refusal.ISSUER),
    (jwt.InvalidAudienceError, Refusal.AUDIENCE),
    (jwt.MissingRequiredClaimError, Refusal.CLAIMS),
    (jwt.exceptions.InvalidSubjectError, Refusal.CLAIMS),
    (jwt.exceptions.InvalidJTIError, Refusal.CLAIMS),
    (jwt.InvalidIssuedAtError, Refusal.CLAIMS),
)


class _Verified(NamedTuple):
    caller: Caller
    expires_at: float


class Tokens:
    """Finds the caller of a token.

    Args:
        settings: whose tokens are accepted.
        keys: verify them.
    """

    def __init__(self, settings: JwtSettings, keys: TokenKeys) -> None:
        self._settings = settings
        self._keys = keys
        self._jwt = _StrictJwt(
            options={"require": ["iss", "aud", "sub", "exp"], "enforce_minimum_key_length": True},
        )
        self._verified = _VerifiedTokens(keys)

    def state(self) -> str:
        """Return "ok", what needs attention, or why no token can be verified."""
        return self._keys.state()

    async def caller_of(self, token: str) -> Caller | Problem:
        """Return the caller of a token, or the problem for which it is refused."""
        if len(token) > TOKEN_LENGTH_MAX:
            return self._problem(Refusal.MALFORMED)
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        if (known := self._verified.get(digest)) is not None:
            return known
        found = await self._verify(token)
        if isinstance(found, Refusal):
            return self._problem(found)
        self._verified.add(digest, found)
        return found.caller

    async def _verify(self, token: str) -> _Verified | Refusal:
        if not (compact := _COMPACT.fullmatch(token)):
            return Refusal.MALFORMED
        header = _parse(_decode(compact[1]))
        if header is None:
            return Refusal.MALFORMED
        key_id, algorithm = header.get("kid"), header.get("alg")
        if not _is_supported(header) or not isinstance(key_id, str | None):
            return Refusal.HEADER
        if algorithm not in self._settings.algorithms:
            return Refusal.ALGORITHM
        claims: dict[str, Any] | Refusal = Refusal.KEY
        # Two keys may have one id while they are rotated.
        for key in await self._keys.find(key_id, algorithm):
            claims = self._claims(token, key)
            if claims is not Refusal.SIGNATURE:
                break
        return claims if isinstance(claims, Refusal) else self._verified_claims(claims)

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any] | Refusal:
        try:
            return self._jwt.decode(
                token,
                key,
                algorithms=self._settings.algorithms,
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                leeway=self._settings.jwt_leeway_seconds,
            )
        except jwt.PyJWTError as error:
            return next((refusal for kind, refusal in _REFUSALS if isinstance(error, kind)), Refusal.MALFORMED)

    def _verified_claims(self, claims: dict[str, Any]) -> _Verified | Refusal:
        scope, subject = claims.get("scope", ""), claims["sub"]
        if not isinstance(scope, str) or type(claims["exp"]) not in {int, float}:
            return Refusal.CLAIMS
        scopes = frozenset(scope.split(" ")) - {""}
        is_bound = self._settings.jwt_unbound_scope not in scopes
        if not (_is_user_id(subject) if is_bound else _is_name(subject)):
            return Refusal.SUBJECT
        # An issuer has no space. So no two subjects, and no API key, have one id.
        caller_id = f"jwt:{self._settings.jwt_issuer} {subject}"
        caller = Caller(caller_id, subject if is_bound else None, scopes & _KNOWN_SCOPES)
        return _Verified(caller, claims["exp"])

    def _problem(self, refusal: Refusal) -> Problem:
        if refusal is Refusal.KEY and not self._keys.are_known:
            return Unavailable("Authorization: the keys that verify tokens cannot be read. See /ready. Retry later.")
        return Unauthorized(f"Authorization: the token {refusal.text}.", f"jwt-{refusal}")


@asynccontextmanager
async def open_tokens(settings: JwtSettings) -> AsyncIterator[Tokens]:
    """Lend what finds the callers of tokens, and keep its keys up to date."""
    if settings.jwt_jwks_file is not None:
        source: KeySource = KeysFile(settings.jwt_jwks_file)
    else:
        source = JwksUrl(settings.jwt_jwks_url, settings.jwt_jwks_refresh_seconds)
    keys = TokenKeys(source, settings.algorithms, settings.jwt_jwks_stale_seconds_max)
    async with in_background("jwt_keys", keys.run):
        yield Tokens(settings, keys)


class _VerifiedTokens:
    """The callers of tokens whose signature was verified, until the tokens expire or the keys change."""

    def __init__(self, keys: TokenKeys) -> None:
        self._keys = keys
        self._generation = keys.generation
        self._found: dict[bytes, _Verified] = {}

    def get(self, digest: bytes) -> Caller | None:
        found = self._of_these_keys().get(digest)
        return found.caller if found and self._keys.are_known and time.time() < found.expires_at else None

    def add(self, digest: bytes, verified: _Verified) -> None:
        known = self._of_these_keys()
        if len(known) >= _VERIFIED_MAX:
            known.clear()
        known[digest] = verified

    def _of_these_keys(self) -> dict[bytes, _Verified]:
        if self._generation != self._keys.generation:
            self._found.clear()
            self._generation = self._keys.generation
        return self._found


class _StrictJwt(jwt.PyJWT):
    """PyJWT that refuses a claim which comes twice: JSON readers differ in which of the two counts."""

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        claims = _parse(decoded["payload"])
        if claims is None:
            raise jwt.DecodeError("The claims are not a JSON object.")
        return claims


def _decode(segment: str) -> bytes:
    # PyJWT refuses what is not canonical; here it is enough to read the header.
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4)) if len(segment) % 4 != 1 else b""


def _parse(document: bytes) -> dict[str, Any] | None:
    try:
        parsed = jiter.from_json(document, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _is_supported(header: dict[str, Any]) -> bool:
    kind = header.get("typ", "JWT")
    return isinstance(kind, str) and kind.lower() in _TYPES and not header.keys() & {"crit", "b64"}


def _is_user_id(subject: str) -> bool:
    try:
        check_new_user_id(subject)
    except ValueError:
        return False
    return True


def _is_name(subject: str) -> bool:
    return 1 <= len(subject) <= _SUBJECT_LENGTH_MAX and subject.isprintable()
