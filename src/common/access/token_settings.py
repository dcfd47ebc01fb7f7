"""Settings of JSON Web Tokens: whose tokens the APIs accept, and which keys verify them."""

import re
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from common.access.caller import SCOPES
from common.access.key_documents import ALGORITHMS, Unusable, read_file
from common.loopback import is_loopback
from common.settings import Settings

_NAME: Final = re.compile(r"[!-~]{1,255}")
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")


def _name(value: str) -> str:
    if value and not _NAME.fullmatch(value):
        raise ValueError("must be at most 255 visible ASCII characters")
    return value


def _algorithms(value: str) -> str:
    names = [name.strip() for name in value.split(",")]
    if unknown := [name for name in names if name not in ALGORITHMS]:
        raise ValueError(f"{unknown[0]!r} is not accepted; name some of {', '.join(ALGORITHMS)}")
    return ",".join(names)


def _jwks_url(value: str) -> str:
    if not value:
        return value
    try:
        url = urlsplit(value)
        host, is_url = url.hostname or "", url.port != 0 and url.scheme in {"https", "http"}
    except ValueError:
        host, is_url = "", False
    if not host or not is_url or url.username is not None or url.fragment:
        raise ValueError("must be https://host/path, without user, password and fragment")
    if url.scheme == "http" and not is_loopback(host):
        raise ValueError("must begin with https:// unless its host is on loopback: changed keys would let strangers in")
    return value


def _unbound_scope(value: str) -> str:
    if value in SCOPES:
        raise ValueError(f"must be a scope of its own, which the APIs do not know, not {value}")
    if value and not _SCOPE.fullmatch(value):
        raise ValueError("must be one scope: visible ASCII characters without a double quote or a backslash")
    return value


Name = Annotated[str, AfterValidator(_name)]


class JwtSettings(Settings):
    """Whose JWTs an API accepts. Without any of them it accepts none."""

    jwt_issuer: Name = ""
    """The issuer of the tokens, exactly as their claim `iss` has it."""
    jwt_audience: Name = ""
    """This API's name at the issuer, which the claim `aud` of a token must have."""
    jwt_jwks_url: Annotated[str, AfterValidator(_jwks_url)] = ""
    """Where the issuer publishes its keys (`jwks_uri`): `https://…`; `http://…` on loopback only."""
    jwt_jwks_file: Path | None = None
    """A file with the issuer's keys, instead of JWT_JWKS_URL: a JWKS, or public keys in PEM. A new file counts within a
    second or two."""
    jwt_algorithms: Annotated[str, AfterValidator(_algorithms)] = "RS256,ES256,EdDSA"
    """The algorithms that may sign a token: some of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and
    EdDSA. Shared secrets (HS256) and `none` are never accepted."""
    jwt_leeway_seconds: float = Field(30.0, ge=0, le=300)
    """How far the issuer's clock may differ from this one: for the claims `exp`, `nbf` and `iat`."""
    jwt_unbound_scope: Annotated[str, AfterValidator(_unbound_scope)] = ""
    """The scope of a token that is not bound to the user of its claim `sub`: a service's, which acts for all users. By
    default each token is bound."""
    jwt_jwks_refresh_seconds: float = Field(300.0, ge=10, le=86400)
    """How often the keys of JWT_JWKS_URL are read. A key that the issuer removes works for this long at most."""
    jwt_jwks_stale_seconds_max: float = Field(86400.0, ge=60, le=604_800)
    """How long keys are used after their last read, while JWT_JWKS_URL or JWT_JWKS_FILE cannot be read. Then tokens are
    answered 503."""

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The names of JWT_ALGORITHMS."""
        return tuple(self.jwt_algorithms.split(","))

    @property
    def has_jwt(self) -> bool:
        """Whether tokens are configured."""
        return bool(self.jwt_issuer)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        places = [name for name in ("jwt_jwks_url", "jwt_jwks_file") if getattr(self, name)]
        if not (self.jwt_issuer or self.jwt_audience or places):
            return self
        for name in ("jwt_issuer", "jwt_audience"):
            if not getattr(self, name):
                raise ValueError(f"{name.upper()}: is required where JWTs are accepted")
        if len(places) != 1:
            raise ValueError("JWT_JWKS_URL or JWT_JWKS_FILE: one of them is required, and not both")
        return self

    @model_validator(mode="after")
    def _file_has_keys(self) -> Self:
        if self.jwt_jwks_file is None:
            return self
        # Imported here, because most processes accept no JWTs.
        from common.access.signing_keys import read_keys  # noqa: PLC0415

        document = read_file(self.jwt_jwks_file)
        keys = document if isinstance(document, Unusable) else read_keys(document, self.algorithms)
        if isinstance(keys, Unusable):
            raise ValueError(f"JWT_JWKS_FILE: {keys.reason}")  # noqa: TRY004 it is no error of a type
        if not keys.keys:
            raise ValueError(f"JWT_JWKS_FILE: has no key for {self.jwt_algorithms}")
        return self
