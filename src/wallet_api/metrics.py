"""The wallet API's metrics."""

from prometheus_client import Counter, Histogram

operations = Counter(
    "wallet_operations_total",
    "Decided requests by operation, such as create or transfer, and by outcome: done, replayed, previewed or a"
    " problem's code.",
    ("operation", "outcome"),
)

transaction_retries = Counter(
    "wallet_transaction_retries_total",
    "Retries by reason: of transactions (a SQLSTATE) and of commands (`version-conflict`, `wallet-busy`,"
    " `idempotency-key-in-flight`).",
    ("reason",),
)

batch_commands = Histogram(
    "wallet_batch_commands",
    "Commands that shared one transaction, by group commit (create, operations).",
    ("operation",),
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
