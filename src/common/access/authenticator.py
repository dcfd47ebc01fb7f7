"""The authenticator: turns the Bearer token of a request into its caller."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from common.access.api_keys import PREFIX
from common.access.caller import ANONYMOUS, Caller
from common.access.key_store import open_key_store
from common.access.settings import AccessSettings
from common.problems import Problem, Unauthorized
from common.secrets import Secret


class Authenticator(Protocol):
    """Finds the caller of a request."""

    async def caller_of(self, token: str | None) -> Caller | Problem:
        """Return the caller by the Bearer token, if there is one, or the problem for which the request is refused."""

    def states(self) -> Mapping[str, str]:
        """Return "ok" or what is wrong, by the name of each thing that `/ready` shows."""


class Verifier(Protocol):
    """Finds the caller of one kind of token."""

    async def caller_of(self, text: str) -> Caller | Problem:
        """Return the caller of the token, or the problem for which the request is refused."""

    def state(self) -> str:
        """Return "ok", or why no token can be verified."""


class NoAuthentication:
    """Lets each request in as the same caller, who may do everything."""

    async def caller_of(self, token: str | None) -> Caller | Problem:
        """Return the anonymous caller."""
        del token
        return ANONYMOUS

    def states(self) -> Mapping[str, str]:
        """Return nothing: there is nothing to be ready."""
        return {}


class BearerTokens:
    """Takes a token that begins with `wk_` for an API key.

    Args:
        api_keys: verifies API keys.
    """

    def __init__(self, api_keys: Verifier) -> None:
        self._api_keys = api_keys

    async def caller_of(self, token: str | None) -> Caller | Problem:
        """Return the caller of the token."""
        if token is None:
            return Unauthorized.missing()
        if token.startswith(PREFIX):
            return await self._api_keys.caller_of(token)
        return Unauthorized.invalid("malformed")

    def states(self) -> Mapping[str, str]:
        """Return the state of the verifiers."""
        return {"api_keys": self._api_keys.state()}


@asynccontextmanager
async def open_authenticator(
    settings: AccessSettings, keys_url: Secret | None, *, on_standby: bool = False
) -> AsyncIterator[Authenticator]:
    """Lend the authenticator that the settings ask for.

    Args:
        settings: of the API.
        keys_url: of the database that has the API keys, if the settings ask for them.
        on_standby: as for `open_key_store`.
    """
    if settings.auth == "none":
        yield NoAuthentication()
        return
    assert keys_url is not None
    async with open_key_store(keys_url, settings.database_connect_timeout_seconds, on_standby=on_standby) as keys:
        yield BearerTokens(keys)
