"""Settings of what an API lets in from the network, and of who reads metrics."""

import re
from ipaddress import ip_network
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from common.secrets import Secret
from common.settings import ApiSettings, Settings

# RFC 6454, section 7: a scheme, a host and maybe a port. A browser sends its origin in lower case.
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?")


def items_of(text: str) -> list[str]:
    """Return the items of a list with commas."""
    return [item.strip() for item in text.split(",") if item.strip()]


def _networks(text: str) -> str:
    for item in items_of(text):
        try:
            ip_network(item)
        except ValueError as error:
            raise ValueError(
                f"{item!r} is no address or network; name each trusted proxy: 10.0.0.7,192.0.2.0/24"
            ) from error
    return text


def _origins(text: str) -> str:
    for item in items_of(text):
        if not _ORIGIN.fullmatch(item):
            raise ValueError(f"{item!r} is no origin; name each in full, as browsers send it: https://app.example")
    return text


class MetricsSettings(Settings):
    """Who may read `/metrics`."""

    metrics_token: Secret | None = None
    """The token that a reader of `/metrics` sends as `Authorization: Bearer …`. Unset, a process that listens on
    loopback answers everyone, and any other process answers 403. `/live` and `/ready` are always open."""


class HttpApiSettings(ApiSettings, MetricsSettings):
    """What an API process lets in: its bounds, rate limits, trusted proxies, browsers and pages for people."""

    rate_limit_requests_per_second: float | None = Field(None, gt=0, le=1_000_000)
    """Requests that a caller may send in the long run; one more is answered 429. Each process counts for itself. With
    `AUTH=none` each client address is a caller. Unset means no limit."""
    rate_limit_burst_requests: int = Field(100, ge=1, le=1_000_000)
    """Requests that a caller may send at once, after a pause."""
    authentication_failures_per_second: float = Field(5.0, gt=0, le=1_000_000)
    """Requests with missing or invalid credentials that a client address (IPv6: a /64 network) may send in the long
    run. One more is answered 429 before its credentials are looked up."""
    authentication_failures_burst: int = Field(50, ge=1, le=1_000_000)
    """Such requests that a client address may send at once, after a pause."""
    forwarded_allow_ips: Annotated[str, AfterValidator(_networks)] = ""
    """Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed: `10.0.0.7,192.0.2.0/24`. Unset means none:
    the client is then the peer of the connection."""
    cors_allow_origins: Annotated[str, AfterValidator(_origins)] = ""
    """Origins whose scripts may call the API from a browser: `https://app.example,https://admin.example`. Unset means
    none."""
    strict_transport_security_seconds: int | None = Field(None, ge=0, le=63_072_000)
    """`max-age` of the header `Strict-Transport-Security` in each reply, for an API behind TLS. Unset, the header is
    left out."""
    api_docs: bool | None = None
    """Whether `/docs` and `/openapi.json` are served. Unset means yes if the process listens on loopback, else no."""
