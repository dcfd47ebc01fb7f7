"""Metrics that both APIs declare alike."""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# A gauge for each counter's birth says nothing that the counter doesn't.
disable_created_metrics()  # type: ignore[no-untyped-call]

http_request_duration_seconds = Histogram(
    "http_request_duration_seconds",
    "Time from the request's first byte to the reply's last, by route template, method and status.",
    ("method", "route", "status"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

http_requests_refused = Counter(
    "http_requests_refused_total",
    "Requests answered 503 because too many were under way (overload) or time was up (deadline).",
    ("reason",),
)

http_connections_open = Gauge(
    "http_connections_open",
    "Connections that clients have to this server.",
    multiprocess_mode="livesum",
)

http_connections_ended = Counter(
    "http_connections_ended_total",
    "Connections that the server ended, by reason: the head, the body or the reading of the reply took too long"
    " (head-deadline, body-deadline, reply-stalled), what came was refused as HTTP (refused), or there were too many:"
    " an idle one gave way to a new one (gave-way), or all were busy (at-capacity).",
    ("reason",),
)
