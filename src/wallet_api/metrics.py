"""The wallet API's metrics."""

from prometheus_client import Counter

operations = Counter(
    "wallet_operations_total",
    "Decided requests by operation (create, fund, transfer) and outcome (done, replayed or a problem's code).",
    ("operation", "outcome"),
)

transaction_retries = Counter(
    "wallet_transaction_retries_total",
    "Transactions run again, by reason: a SQLSTATE, `version` (an optimistic race lost) or `stale-plan`.",
    ("reason",),
)
