"""The lines of `make bench` and their targets, in the order of the report."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Target:
    """One line of the report.

    Attributes:
        name: the line's key in the JSON; it never changes.
        what: what is measured, and the peer, if there is one.
        unit: the unit of our value and the peer's.
        bound: the bound of the ratio, or of the value if there is no peer.
        at_least: whether `bound` is the least allowed; else it is the most.
    """

    name: str
    what: str
    unit: str
    bound: float
    at_least: bool = True

    def met_by(self, value: float) -> bool:
        """Return whether this value meets the target."""
        return value >= self.bound if self.at_least else value <= self.bound


_ALL: Final = (
    Target("transfers_64_orm", "transfers, 64 connections, beside the ORM app", "transfers/s", 8),
    Target("transfers_128_orm", "transfers, 128 connections, beside the ORM app", "transfers/s", 8),
    Target("transfers_64_pgbench", "transfers, 64 connections, beside pgbench by statements", "transfers/s", 1.0),
    Target("transfers_128_pgbench", "transfers, 128 connections, beside pgbench by statements", "transfers/s", 1.0),
    Target("hot_transfers", "transfers out of one wallet, beside pgbench by one function", "transfers/s", 1.5),
    Target("api_key", "transfers with an API key, beside AUTH=none", "transfers/s", 0.95),
    Target("hot_funds", "funds of one wallet, beside the ORM app", "funds/s", 8),
    Target("mixed_money", "funds and transfers mixed, 64 connections, beside transfers alone", "movements/s", 0.75),
    Target("mixed_commits", "funds and transfers in a commit, beside transfers alone", "movements/commit", 0.35),
    Target("batch_1", "transfers in batches of 100, 1 connection, beside transfers alone", "transfers/s", 3),
    Target("batch_8", "transfers in batches of 100, 8 connections, beside transfers alone", "transfers/s", 3),
    Target("batch_64", "transfers in batches of 100, 64 connections, beside transfers alone", "transfers/s", 3),
    Target("atomic_64", "transfers in atomic batches of 100, 64 connections, beside transfers alone", "transfers/s", 3),
    Target("relay_drain", "relay draining a backlog, beside Debezium", "events/s", 2.0),
    Target("relay_p50", "commit to Kafka at 500 events/s, p50, beside Debezium", "ms", 0.4, at_least=False),
    Target("relay_p99", "commit to Kafka at 500 events/s, p99, beside Debezium", "ms", 0.7, at_least=False),
    Target("two_relays", "two relays draining, beside one relay", "events/s", 0.9),
    Target("consumer_apply", "consumer applying, beside COPY of the same rows", "events/s", 0.4),
    Target("visible_p50", "commit to visible history at 500 transfers/s, p50", "ms", 15, at_least=False),
    Target("visible_p99", "commit to visible history at 500 transfers/s, p99", "ms", 60, at_least=False),
    Target("api_p99", "API latency at half of its own top rate, p99", "ms", 25, at_least=False),
    Target("grown_transfers", "transfers in a grown database, beside a small one", "transfers/s", 0.8),
    Target("grown_claim", "rows that a relay's claims read in a grown outbox, beside a small one", "rows/s", 0.8),
    Target("verify", "verify of a grown database, beside pg_dump of the same tables", "s", 3, at_least=False),
    Target("memory_api", "resident memory of an API process", "MiB", 150, at_least=False),
    Target("memory_relay", "resident memory of a relay", "MiB", 150, at_least=False),
    Target("memory_consumer", "resident memory of a consumer", "MiB", 150, at_least=False),
    Target("memory_api_growth", "API memory at the end, beside the middle of the run", "MiB", 1.1, at_least=False),
    Target("memory_relay_growth", "relay memory at the end, beside the middle of the run", "MiB", 1.1, at_least=False),
    Target(
        "memory_consumer_growth", "consumer memory at the end, beside the middle of the run", "MiB", 1.1, at_least=False
    ),
)

TARGETS: Final = {target.name: target for target in _ALL}
