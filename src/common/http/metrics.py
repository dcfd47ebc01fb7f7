"""Metrics of HTTP servers: requests and connections."""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# Without a gauge for each counter's time of creation, which has no use here.
disable_created_metrics()  # type: ignore[no-untyped-call]

http_request_duration_seconds = Histogram(
    "http_request_duration_seconds",
    "Time from the first byte of the request to the last byte of the reply, by route template, method and status.",
    ("method", "route", "status"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

http_requests_refused = Counter(
    "http_requests_refused_total",
    "Requests refused, by reason. overload: 503, the process was at capacity. deadline: 503, the request took too long."
    " rate-limit: 429, the caller or the address has sent more requests than its limit.",
    ("reason",),
)

http_connections_open = Gauge(
    "http_connections_open",
    "Open connections of clients to this server.",
    multiprocess_mode="livesum",
)

http_connections_ended = Counter(
    "http_connections_ended_total",
    "Connections that the server ended, by reason. head-deadline, body-deadline: the head or the body of a request"
    " came too late. reply-stalled: the client did not read its reply. refused: the request was not HTTP/1.1. gave-way:"
    " a new connection replaced an idle one. at-capacity: all connections were busy.",
    ("reason",),
)
