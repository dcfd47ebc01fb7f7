"""Settings of authentication, which both APIs read."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from common.access.api_keys import ENVIRONMENT_PATTERN
from common.access.token_settings import JwtSettings
from common.loopback import is_loopback
from common.settings import ApiSettings, OperatorSettings, WalletDatabaseSettings


class AccessSettings(ApiSettings, JwtSettings):
    """How an API authenticates its callers."""

    auth: Literal["keys", "jwt", "keys,jwt", "none"] = "keys"
    """`keys`: each request needs an API key. `jwt`: each request needs a JWT. `keys,jwt`: it needs one of them. `none`:
    each caller may do everything, and the API listens on loopback only."""
    auth_none_allowed_anywhere: bool = False
    """Whether an API with AUTH=none may listen on other addresses than loopback: each client there may then move all
    money."""

    host_setting: ClassVar[str]
    """The field that has the address on which the API listens."""

    @property
    def accepts_keys(self) -> bool:
        """Whether API keys are credentials."""
        return "keys" in self.auth

    @property
    def accepts_jwts(self) -> bool:
        """Whether JWTs are credentials."""
        return "jwt" in self.auth

    @model_validator(mode="after")
    def _jwts_are_configured_and_accepted(self) -> Self:
        if self.accepts_jwts and not self.has_jwt:
            raise ValueError(f"AUTH={self.auth} needs JWT_ISSUER, JWT_AUDIENCE, and JWT_JWKS_URL or JWT_JWKS_FILE")
        if self.auth == "keys" and self.has_jwt:
            raise ValueError("JWT_ISSUER: AUTH=keys accepts no JWT; set AUTH=keys,jwt, or unset the settings of JWTs")
        return self

    @model_validator(mode="after")
    def _without_authentication_on_loopback(self) -> Self:
        host = getattr(self, self.host_setting)
        if self.auth == "none" and not self.auth_none_allowed_anywhere and not is_loopback(host):
            raise ValueError(
                f"AUTH=none needs a loopback address, and {self.host_setting.upper()} is {host}: use AUTH=keys,"
                " listen on 127.0.0.1, or set AUTH_NONE_ALLOWED_ANYWHERE=true"
            )
        return self


class KeySettings(WalletDatabaseSettings, OperatorSettings):
    """What `walletctl keys` reads."""

    api_key_environment: str = Field("live", pattern=f"^{ENVIRONMENT_PATTERN}$")
    """The part of a new API key that tells people and scanners which installation it is for."""
