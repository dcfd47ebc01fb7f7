"""Settings of authentication, which both APIs read."""

from ipaddress import ip_address
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from common.access.api_keys import ENVIRONMENT_PATTERN
from common.settings import ApiSettings, OperatorSettings, WalletDatabaseSettings


class AccessSettings(ApiSettings):
    """How an API authenticates its callers."""

    auth: Literal["keys", "none"] = "keys"
    """`keys`: each request needs an API key. `none`: each caller may do everything, and the API listens on loopback
    only."""
    auth_none_allowed_anywhere: bool = False
    """Whether an API with AUTH=none may listen on other addresses than loopback: each client there may then move all
    money."""

    host_setting: ClassVar[str]
    """The field that has the address on which the API listens."""

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


def is_loopback(host: str) -> bool:
    """Whether the address is this machine's own, which no other machine reaches."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
