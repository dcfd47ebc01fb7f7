"""The history consumer's metrics."""

from prometheus_client import Counter, Gauge, Histogram

records = Counter("history_records_total", "Records of the topic that were applied or dead-lettered.")

rows = Counter(
    "history_rows_total",
    "History rows by outcome: `new`, or `duplicate` (the history had the event already).",
    ("outcome",),
)

dead_letters = Counter("history_dead_letters_total", "Records that became dead letters, by reason.", ("reason",))

dead_letters_pruned = Counter(
    "history_dead_letters_pruned_total",
    "Dead letters that were deleted because they were old (`DEAD_LETTER_RETENTION_DAYS`).",
)

conflicts = Counter(
    "history_conflicts_total",
    "Alarm: events whose (wallet, version) another event has.",
)

old_gaps = Gauge(
    "history_old_gaps",
    "Alarm: wallets of the whole history that miss a version for more than 30 s, though the group has read all "
    "records of that time. Each consumer reports the same number.",
)

open_conflicts = Gauge(
    "history_open_conflicts",
    "Alarm: dead letters whose (wallet, version) another event has. Each consumer reports the same number.",
)

batch_seconds = Histogram(
    "history_batch_duration_seconds",
    "Time from the poll of a batch's first record to its commit.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)

lag_seconds = Histogram(
    "history_lag_seconds",
    "Time from a wallet's change to the commit of its history row: the oldest of each batch, by this machine's clock.",
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)

partitions_held = Gauge("history_partitions_held", "Partitions that this consumer reads.")

partitions_halted = Gauge(
    "history_partitions_halted",
    "Alarm: partitions of this consumer that are halted until an operator acts. The log says which, and why.",
)

stalls = Counter(
    "history_standstills_total",
    "Stalls: the client got no record, though the broker had more. The consumer joined again with a new client.",
)

takeovers = Counter("history_takeovers_total", "Batches rolled back because another consumer had the partition.")

transaction_retries = Counter("history_transaction_retries_total", "Transactions run again, by SQLSTATE.", ("reason",))

failures = Counter(
    "history_failures_total",
    "Steps that failed because a server was away or denied an operation, by server.",
    ("dependency",),
)
