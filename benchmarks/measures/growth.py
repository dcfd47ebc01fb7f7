"""A grown database beside a small one."""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import queries
from benchmarks.lab import Lab
from benchmarks.load.sides import in_turn, refusals
from benchmarks.measures.backlog import backlog
from benchmarks.measures.http import CONNECTIONS, our_api
from benchmarks.place import Place
from benchmarks.plan import BALANCE_MINOR, WALLETS, Plan
from benchmarks.results import Findings


def grown_beside_small(lab: Lab, plan: Plan, findings: Findings) -> None:
    """Transfers and the relay's claims, with many wallets, a long ledger and a backlog."""
    with _grown(lab, plan) as grown:
        ledger_rows = 2 * queries.value(grown.url, queries.MOVEMENTS)
        pending = queries.value(grown.url, queries.PENDING)
        note = f"{plan.grown_wallets:,} wallets, {ledger_rows:,} ledger rows, {pending:,} pending events"
        _compare_transfers(lab, plan, findings, grown, note)
        ours = _rows_claimed_a_second(lab, grown)
        grown.verify()
    with lab.place(backlog(lab, plan)) as small:
        peer = _rows_claimed_a_second(lab, small)
        small.verify()
    findings.compare("grown_claim", [ours], [peer], note)


@contextmanager
def _grown(lab: Lab, plan: Plan) -> Iterator[Place]:
    """Make a grown database as use would: all rounds of transfers but the last are published."""
    count, rounds = plan.grown_wallets, plan.grown_rounds
    with lab.place(lab.template(count)) as place:
        make = f"CALL bench.make_rounds({count}, {BALANCE_MINOR}, {{}}, {{}})"
        queries.run(place.url, make.format(0, rounds - 1))
        with lab.service(place, "relay"):
            place.drain()
        queries.run(place.url, make.format(rounds - 1, rounds), "VACUUM ANALYZE", "CHECKPOINT")
        yield place


def _compare_transfers(lab: Lab, plan: Plan, findings: Findings, grown: Place, note: str) -> None:
    with lab.place(lab.template(WALLETS)) as small:
        with our_api(lab, grown, plan.grown_wallets) as api, our_api(lab, small) as small_api:
            side, peer = api.side(CONNECTIONS[0]), small_api.side(CONNECTIONS[0])
            samples = in_turn(plan, side, peer)
        small.verify()
    findings.compare("grown_transfers", *samples, note="; ".join(filter(None, (note, refusals(side)))))


def _rows_claimed_a_second(lab: Lab, place: Place) -> float:
    """Drain with a relay; return how many rows it read in a second of PostgreSQL's time."""
    queries.run(place.url, queries.TRACK_STATEMENTS)
    with lab.service(place, "relay"):
        place.drain()
    claimed = queries.fetch(place.url, queries.CLAIMED)[0]
    return float(claimed["rows"] / claimed["seconds"])
