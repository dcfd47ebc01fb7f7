"""The measures, by name, in the order in which they run."""

from collections.abc import Callable, Mapping
from typing import Final

from benchmarks.lab import Lab
from benchmarks.measures import audit, backlog, growth, http, latency, memory
from benchmarks.plan import Plan
from benchmarks.results import Findings

Measure = Callable[[Lab, Plan, Findings], None]

MEASURES: Final[Mapping[str, Measure]] = {
    "transfers-orm": http.transfers_beside_orm,
    "transfers-pgbench": http.transfers_beside_pgbench,
    "hot-transfers": http.hot_transfers_beside_pgbench,
    "api-key": http.keys_beside_no_authentication,
    "hot-funds": http.funds_beside_orm,
    "mixed-money": http.mixed_beside_transfers,
    "batches": http.batches_beside_transfers,
    "relay-drain": backlog.relays_beside_debezium,
    "relay-latency": latency.relay_beside_debezium,
    "consumer": backlog.consumer_beside_copy,
    "visible": latency.history_visible,
    "api-latency": latency.api_at_half_rate,
    "growth": growth.grown_beside_small,
    "verify": audit.verify_beside_pg_dump,
    "memory": memory.memory_after,
}
