"""Metrics of authentication."""

from typing import Final

from prometheus_client import Counter

auth_failures: Final = Counter(
    "auth_failures_total",
    "Requests without valid credentials, by reason. no-credentials: no Authorization header with a Bearer token."
    " malformed: the token has no form that is accepted here. unknown-key: an API key that doesn't exist, is revoked or"
    " has expired. wrong-secret: the id of an API key with another secret. unavailable: the keys could not be read.",
    ("reason",),
)
