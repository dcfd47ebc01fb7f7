"""Who may read `/metrics`."""

from hmac import compare_digest

from starlette.requests import Request

from common.http.addresses import client_address
from common.http.bearer import bearer_token
from common.http.rate_limits import too_many_requests
from common.http.token_buckets import TokenBuckets
from common.loopback import is_loopback
from common.problems import Forbidden, Problem, Unauthorized, Unavailable
from common.secrets import Secret, UnreadableSecretError


class MetricsGuard:
    """Lets readers of `/metrics` in: all of them on loopback, those with the token elsewhere.

    Args:
        host: the address that the process listens on.
        token: the token. If there is one, it is needed on loopback too, where a proxy may forward to.
    """

    def __init__(self, host: str, token: Secret | None) -> None:
        self._is_open = is_loopback(host)
        self._token = token
        self._refused = TokenBuckets(per_second=1, burst=10)

    def refusal(self, request: Request) -> Problem | None:
        """Return the problem for which a request is refused, or None to answer it."""
        if self._token is None:
            return None if self._is_open else Forbidden("METRICS_TOKEN: set it to read /metrics of this process.")
        address = client_address(request.scope)
        if wait_seconds := self._refused.wait_seconds(address):
            return too_many_requests("This address has sent too many wrong tokens.", wait_seconds)
        try:
            expected = self._token.read()
        except UnreadableSecretError:
            return Unavailable("METRICS_TOKEN_FILE: the process cannot read it. Restore the file, then retry.")
        token = bearer_token(request.scope["headers"])
        # A header's bytes reach the application as Latin-1.
        if token is not None and compare_digest(token.encode("latin-1"), expected.encode()):
            return None
        self._refused.take(address)
        return Unauthorized("Authorization: send the token of METRICS_TOKEN, as Bearer.", "metrics-token")
