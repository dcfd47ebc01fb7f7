"""Metrics of authentication."""

from typing import Final

from prometheus_client import Counter, Gauge

auth_failures: Final = Counter(
    "auth_failures_total",
    "Requests without valid credentials, by reason. no-credentials: no Authorization header with a Bearer token."
    " malformed: the token has no form that is accepted here. unknown-key: an API key that doesn't exist, is revoked or"
    " has expired. wrong-secret: the id of an API key with another secret. unavailable: the keys could not be read."
    " jwt-…: a JWT that is refused; docs/tokens.md explains each reason.",
    ("reason",),
)

jwt_key_reads = Counter(
    "jwt_key_reads_total",
    "Reads of JWT_JWKS_URL or JWT_JWKS_FILE by outcome (changed, unchanged, failed).",
    ("outcome",),
)

jwt_keys_stale = Gauge(
    "jwt_keys_stale",
    "Alarm: 1 while the keys that verify JWTs cannot be read. Old keys are used, for JWT_JWKS_STALE_SECONDS_MAX.",
    multiprocess_mode="livemax",
)
