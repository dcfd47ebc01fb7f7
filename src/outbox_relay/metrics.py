"""The relay's metrics."""

from prometheus_client import Counter, Gauge, Histogram

rows = Counter("outbox_relay_rows_total", "Outbox rows by outcome: published, parked or retry.", ("outcome",))

failures = Counter("outbox_relay_failures_total", "Steps that failed, by what was away.", ("dependency",))

publish_seconds = Histogram(
    "outbox_relay_publish_seconds",
    "Time from a batch's first record to its last delivery report.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

oldest_pending_seconds = Gauge(
    "outbox_relay_oldest_pending_seconds", "Age of the oldest row in the last batch; 0 when nothing was pending."
)

pruned = Counter(
    "outbox_relay_pruned_total", "Rows that retention took, by table: outbox, idempotency_keys.", ("table",)
)

low_water_raises = Counter("outbox_relay_low_water_raises_total", "Lanes whose low water rose.")
