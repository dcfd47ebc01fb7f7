"""The authenticator: turns the Bearer token of a request into its caller."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
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
    """Takes a token that begins with `wk_` for an API key, and each other one for a JWT.

    Args:
        api_keys: verifies API keys, if they are accepted.
        jwts: verifies JWTs, if they are accepted.
    """

    def __init__(self, api_keys: Verifier | None, jwts: Verifier | None) -> None:
        self._api_keys = api_keys
        self._jwts = jwts

    async def caller_of(self, token: str | None) -> Caller | Problem:
        """Return the caller of the token."""
        if token is None:
            return Unauthorized.missing()
        verifier = self._api_keys if token.startswith(PREFIX) else self._jwts
        return Unauthorized.invalid("malformed") if verifier is None else await verifier.caller_of(token)

    def states(self) -> Mapping[str, str]:
        """Return the state of the verifiers."""
        verifiers = {"api_keys": self._api_keys, "jwt": self._jwts}
        return {name: verifier.state() for name, verifier in verifiers.items() if verifier is not None}


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
    keys: Verifier | None = None
    jwts: Verifier | None = None
    async with AsyncExitStack() as stack:
        if settings.accepts_keys:
            assert keys_url is not None
            opening = open_key_store(keys_url, settings.database_connect_timeout_seconds, on_standby=on_standby)
            keys = await stack.enter_async_context(opening)
        if settings.accepts_jwts:
            # Imported here, because of its library for cryptography (`key_documents`).
            from common.access.tokens import open_tokens  # noqa: PLC0415

            jwts = await stack.enter_async_context(open_tokens(settings))
        yield BearerTokens(keys, jwts)
