"""How fast a relay and a consumer drain a backlog."""

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import drains, queries
from benchmarks.lab import Lab
from benchmarks.measures.files import copied_out
from benchmarks.peers import debezium
from benchmarks.place import Place
from benchmarks.plan import WALLETS, Plan
from benchmarks.results import Curve, Findings
from walletctl.stack.postgres import binaries

CONSUME_SECONDS_MAX = 600.0


def relays_beside_debezium(lab: Lab, plan: Plan, findings: Findings) -> None:
    """One relay, two relays and Debezium drain the same rows, one after the other, round by round."""
    rates: dict[str, list[float]] = {}
    for number in range(plan.backlog_rounds):
        curves = {
            "one relay": _drained_by_relays(lab, plan, 1),
            "two relays": _drained_by_relays(lab, plan, 2),
            "Debezium": _drained_by_debezium(lab, plan),
        }
        for label, curve in curves.items():
            rates.setdefault(label, []).append(drains.rate(curve))
            if number == 0:
                findings.curve("drain", label, curve)
    findings.compare("relay_drain", rates["one relay"], rates["Debezium"])
    findings.compare("two_relays", rates["two relays"], rates["one relay"])


def consumer_beside_copy(lab: Lab, plan: Plan, findings: Findings) -> None:
    """A consumer applies a whole topic; psql copies the resulting rows into empty tables."""
    ours, peer = [], []
    for _ in range(plan.backlog_rounds):
        with lab.place(backlog(lab, plan)) as place:
            with lab.service(place, "relay"):
                place.drain()
            events = place.record_count()
            ours.append(drains.rate(_consumed(lab, place, events)))
            with copied_out(place, lab.directory) as files:
                peer.append(events / _copy_seconds(lab, files))
            place.verify()
    findings.compare("consumer_apply", ours, peer)


def backlog(lab: Lab, plan: Plan) -> str:
    """Return the template whose pending rows are the plan's backlog."""
    return lab.template(WALLETS, plan.drain_events // WALLETS)


def _drained_by_relays(lab: Lab, plan: Plan, relays: int) -> Curve:
    with lab.place(backlog(lab, plan)) as place:
        pending = queries.value(place.url, queries.PENDING)
        with drains.recorded(place, pending) as curve, ExitStack() as services:
            # No relay begins before all have started.
            with queries.held(place.url, queries.LANES):
                for _ in range(relays):
                    services.enter_context(lab.service(place, "relay"))
            found = curve.result()
            place.drain()
        place.verify()
    return found


def _drained_by_debezium(lab: Lab, plan: Plan) -> Curve:
    with lab.place(backlog(lab, plan)) as place:
        queries.run(place.url, queries.COPY_BACKLOG, queries.EMPTY_OUTBOX)
        with debezium.slot(place):
            queries.run(place.url, queries.REFILL_OUTBOX, "VACUUM ANALYZE wallet.outbox", "CHECKPOINT")
            pending = queries.value(place.url, queries.PENDING)
            with drains.recorded(place, pending) as curve, debezium.running(lab, place):
                return curve.result()


def _consumed(lab: Lab, place: Place, events: int) -> Curve:
    with lab.service(place, "consumer"):
        seen = queries.poll(
            place.url,
            queries.NEXT_OFFSETS,
            lambda position: position >= events,
            pause_seconds=drains.PAUSE_SECONDS,
            timeout_seconds=CONSUME_SECONDS_MAX,
        )
    return drains.begun([(at, float(position)) for at, position in seen])


def _copy_seconds(lab: Lab, files: dict[str, Path]) -> float:
    with lab.place(lab.template(WALLETS)) as place:
        copies = [f"\\copy {table} FROM '{file}' (FORMAT csv)" for table, file in files.items()]
        commands = [word for copy in copies for word in ("-c", copy)]
        started = time.monotonic()
        subprocess.run(
            [str(binaries() / "psql"), "-qX", "-v", "ON_ERROR_STOP=1", "--single-transaction", *commands, place.url],
            check=True,
        )
        return time.monotonic() - started
