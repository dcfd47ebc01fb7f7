"""The sizes of a run."""

from dataclasses import dataclass
from typing import Final

WALLETS: Final = 10_000
"""The number of wallets over which a load is spread."""

BALANCE_MINOR: Final = 100_000_000
"""The first balance of each wallet: more than any run moves out of one."""


@dataclass(frozen=True)
class Plan:
    """The size of a run.

    Attributes:
        name: the size's name.
        rounds: how often each load is measured.
        load_seconds: the length of one round of a load over HTTP or by pgbench.
        warmup_seconds: the length of the same load before the first round.
        connections: numbers of connections that are measured once each, for the plot, beside the targets' 64 and 128.
        backlog_rounds: how often each backlog is drained.
        drain_events: the backlog of a relay, and of a consumer, in events.
        fixed_rate_seconds: the length of one round of a load at a fixed rate.
        grown_wallets: the wallets of the grown database, and its pending events.
        grown_rounds: transfers of each of these wallets; each transfer writes two ledger rows.
        memory_requests: transfers over HTTP before the API's memory is measured.
        memory_events: events before the relay's and the consumer's memory is measured.
    """

    name: str
    rounds: int
    load_seconds: int
    warmup_seconds: int
    connections: tuple[int, ...]
    backlog_rounds: int
    drain_events: int
    fixed_rate_seconds: int
    grown_wallets: int
    grown_rounds: int
    memory_requests: int
    memory_events: int


QUICK: Final = Plan(
    name="quick",
    rounds=2,
    load_seconds=1,
    warmup_seconds=1,
    connections=(),
    backlog_rounds=1,
    drain_events=20_000,
    fixed_rate_seconds=2,
    grown_wallets=20_000,
    grown_rounds=2,
    memory_requests=2_000,
    memory_events=20_000,
)
NORMAL: Final = Plan(
    name="normal",
    rounds=3,
    load_seconds=4,
    warmup_seconds=1,
    connections=(32,),
    backlog_rounds=2,
    drain_events=300_000,
    fixed_rate_seconds=5,
    grown_wallets=50_000,
    grown_rounds=4,
    memory_requests=40_000,
    memory_events=150_000,
)
FULL: Final = Plan(
    name="full",
    rounds=3,
    load_seconds=10,
    warmup_seconds=5,
    connections=(8, 32),
    backlog_rounds=3,
    drain_events=300_000,
    fixed_rate_seconds=20,
    grown_wallets=1_000_000,
    grown_rounds=4,
    memory_requests=1_000_000,
    memory_events=1_000_000,
)

PLANS: Final = {plan.name: plan for plan in (QUICK, NORMAL, FULL)}
