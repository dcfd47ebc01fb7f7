"""The relay's metrics."""

from prometheus_client import Counter, Gauge, Histogram

rows = Counter("outbox_relay_rows_total", "Outbox rows by outcome: published, parked or retry.", ("outcome",))

failures = Counter(
    "outbox_relay_failures_total", "Steps that failed, by the dependency that was away.", ("dependency",)
)

publish_seconds = Histogram(
    "outbox_relay_publish_seconds",
    "Time from a batch's first record to its last delivery report.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

oldest_pending_seconds = Gauge(
    "outbox_relay_oldest_pending_seconds", "Age of the oldest row in the last batch; 0 when no row was pending."
)

topic_setting_wrong = Gauge(
    "outbox_relay_topic_setting_wrong",
    "Alarm: 1 if a setting of the topic may lose events, 0 if not, -1 if it could not be checked.",
    ("setting",),
)

pruned = Counter(
    "outbox_relay_pruned_total", "Rows that retention deleted, by table: outbox, idempotency_keys.", ("table",)
)

sequence_behind = Gauge(
    "outbox_relay_sequence_behind",
    "Alarm: by how many ids the outbox's sequence is behind the highest id that was handed out.",
)

rows_moved = Counter(
    "outbox_relay_rows_moved_total",
    "Pending rows that got a new id, because their id was handed out twice or is below the low water.",
)

low_water_raises = Counter("outbox_relay_low_water_raises_total", "Lanes whose low water rose.")
