"""Rate limits of callers, and of client addresses whose credentials are refused."""

from math import ceil
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.access.caller import Caller
from common.http.addresses import client_address
from common.http.metrics import http_requests_refused
from common.http.problem_responses import problem_response
from common.http.token_buckets import TokenBuckets
from common.problems import TooManyRequests

_TOKENS_MAX: Final = 10_000


def too_many_requests(what: str, wait_seconds: float) -> TooManyRequests:
    """Return the problem of a request beyond a limit, and count it."""
    http_requests_refused.labels("rate-limit").inc()
    seconds = max(ceil(wait_seconds), 1)
    return TooManyRequests(f"{what} Retry after {seconds} s, and send fewer requests.", seconds)


class CallerRateLimit:
    """ASGI middleware with a token bucket for each caller; where authentication is off, for each client address.

    Each reply has the headers `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).

    Args:
        app: the application.
        per_second: requests of a caller in the long run.
        burst: requests of a caller at once.
    """

    def __init__(self, app: ASGIApp, per_second: float, burst: int) -> None:
        self.app = app
        self._buckets = TokenBuckets(per_second, burst)
        self._policy = (b"ratelimit-policy", f'"caller";q={burst};w={ceil(self._buckets.full_seconds)}'.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the caller's request on within the limit, or refuse it."""
        caller: Caller | None = scope.get("caller")
        if caller is None:
            await self.app(scope, receive, send)
            return
        bucket = self._buckets.take(caller.id or client_address(scope))
        limit = f'"caller";r={bucket.left};t={ceil(bucket.full_seconds)}'
        fields = (self._policy, (b"ratelimit", limit.encode()))

        async def send_with_limit(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *fields]
            await send(message)

        app = self.app
        if bucket.wait_seconds:
            problem = too_many_requests("The caller has sent more requests than its limit.", bucket.wait_seconds)
            app = problem_response(Request(scope), problem)
        await app(scope, receive, send_with_limit)


class RefusalLimit:
    """Slows down client addresses that send requests with invalid credentials.

    Credentials that were valid in this process pass, so that a client isn't slowed down by another one behind the same
    address.

    Args:
        per_second: refused requests of an address in the long run.
        burst: refused requests of an address at once.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._buckets = TokenBuckets(per_second, burst)
        # Hashes, so that memory doesn't hold secrets for longer than a request.
        self._valid: set[int] = set()

    def refusal(self, scope: Scope, token: str | None) -> TooManyRequests | None:
        """Return the problem of a request whose token must not be looked up now."""
        if hash(token) in self._valid or not (wait_seconds := self._buckets.wait_seconds(client_address(scope))):
            return None
        return too_many_requests("This address has sent too many requests without valid credentials.", wait_seconds)

    def note_valid(self, token: str | None) -> None:
        """Remember that the token is valid."""
        if len(self._valid) >= _TOKENS_MAX:
            self._valid.clear()
        self._valid.add(hash(token))

    def note_refused(self, scope: Scope, token: str | None) -> None:
        """Count a request whose token was refused."""
        self._valid.discard(hash(token))
        self._buckets.take(client_address(scope))
