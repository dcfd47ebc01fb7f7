"""`walletctl verify` beside `pg_dump` of the same tables."""

import subprocess
import time
from typing import Final

from benchmarks import queries
from benchmarks.lab import Lab
from benchmarks.place import Place
from benchmarks.plan import BALANCE_MINOR, Plan
from benchmarks.results import Findings
from walletctl.stack.postgres import binaries

COMPARED: Final = (
    *("wallet.wallets", "wallet.wallet_transactions", "wallet.outbox"),
    *("history.transaction_events", "history.wallet_progress"),
)
"""The tables that grow and that `verify` compares."""

CATCH_UP_SECONDS_MAX: Final = 3600.0


def verify_beside_pg_dump(lab: Lab, plan: Plan, findings: Findings) -> None:
    """The time of an audit of a grown database whose events are all published and applied."""
    count = plan.grown_wallets
    with lab.place(lab.template(count)) as place:
        queries.run(place.url, f"CALL bench.make_rounds({count}, {BALANCE_MINOR}, 0, {plan.grown_rounds})")
        with lab.service(place, "relay"), lab.service(place, "consumer"):
            place.drain(timeout_seconds=CATCH_UP_SECONDS_MAX)
            place.catch_up(timeout_seconds=CATCH_UP_SECONDS_MAX)
        queries.run(place.url, "VACUUM ANALYZE", "CHECKPOINT")
        # In turn: both find in the caches what the other has left there.
        pairs = [(_dump_seconds(place), place.verify()) for _ in range(plan.backlog_rounds)]
        entries = queries.value(place.url, queries.ENTRIES)
        records = place.record_count()
    findings.compare(
        "verify",
        [verify_seconds for _, verify_seconds in pairs],
        [dump_seconds for dump_seconds, _ in pairs],
        f"{entries:,} ledger rows, {records:,} records",
    )


def _dump_seconds(place: Place) -> float:
    """Dump the tables as SQL, without compression, to nowhere; return how long it took."""
    tables = [f"--table={table}" for table in COMPARED]
    started = time.monotonic()
    subprocess.run([binaries() / "pg_dump", *tables, place.url], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started
