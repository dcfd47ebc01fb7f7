"""Transfers and funds over HTTP."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import queries
from benchmarks.lab import Lab, Service
from benchmarks.load import pgbench, wrk
from benchmarks.load.sides import HttpSide, PgbenchSide, Side, check_answers, in_turn, refusals
from benchmarks.load.wrk import Load
from benchmarks.peers import orm
from benchmarks.place import Place
from benchmarks.plan import WALLETS, Plan
from benchmarks.results import Findings

CONNECTIONS: Final = (64, 128)

# One client that pays out, some of them, and as many as make single requests share transactions.
BATCH_LOADS: Final[Sequence[tuple[int, wrk.Operation]]] = ((1, "batch"), (8, "batch"), (64, "batch"), (64, "atomic"))

# Of 4, 8, 16, 32 and 64 clients, pgbench was fastest with these on two cores.
SPREAD_CLIENTS: Final = 32
HOT_CLIENTS: Final = 8


def transfers_beside_orm(lab: Lab, plan: Plan, findings: Findings) -> None:
    """Transfers spread over all wallets. Both sides publish: our relay runs, and the peer produces itself."""
    with _ours_and_orm(lab) as (ours, peer):
        for connections in sorted({*plan.connections, *CONNECTIONS}):
            side = ours.side(connections)
            own_plan = plan if connections in CONNECTIONS else replace(plan, rounds=1)
            samples = in_turn(own_plan, side, peer.side(connections))
            if connections in CONNECTIONS:
                findings.compare(f"transfers_{connections}_orm", *samples, note=refusals(side))
            for label, found in zip(("this system", "ORM app"), samples, strict=True):
                findings.curve("throughput", label, [(connections, median(found))])


def funds_beside_orm(lab: Lab, plan: Plan, findings: Findings) -> None:
    """Funds of one wallet, optimistic on both sides."""
    with _ours_and_orm(lab) as (ours, peer):
        side = ours.side(CONNECTIONS[0], "fund")
        samples = in_turn(plan, side, peer.side(CONNECTIONS[0], "fund"))
        findings.compare("hot_funds", *samples, note=refusals(side))


def transfers_beside_pgbench(lab: Lab, plan: Plan, findings: Findings) -> None:
    """Transfers spread over all wallets. Neither side publishes meanwhile."""
    with _ours_and_pgbench(lab) as (ours, url):
        peer = PgbenchSide(url, pgbench.BY_STATEMENTS, SPREAD_CLIENTS, WALLETS, senders=WALLETS)
        for connections in CONNECTIONS:
            side = ours.side(connections)
            findings.compare(f"transfers_{connections}_pgbench", *in_turn(plan, side, peer), note=refusals(side))


def hot_transfers_beside_pgbench(lab: Lab, plan: Plan, findings: Findings) -> None:
    """Transfers out of one wallet. The peer does each transfer in one call."""
    with _ours_and_pgbench(lab) as (ours, url):
        peer = PgbenchSide(url, pgbench.BY_FUNCTION, HOT_CLIENTS, WALLETS, senders=1)
        side = ours.side(CONNECTIONS[0], hot=True)
        findings.compare("hot_transfers", *in_turn(plan, side, peer), note=refusals(side))


def keys_beside_no_authentication(lab: Lab, plan: Plan, findings: Findings) -> None:
    """Transfers with an API key, beside our own API with authentication off. Neither side publishes meanwhile."""
    template = lab.template(WALLETS)
    with lab.place(template) as place, lab.place(template) as open_place:
        with our_api(lab, place) as ours, our_api(lab, open_place, AUTH="none") as peer:
            side = ours.side(CONNECTIONS[0])
            samples = in_turn(plan, side, peer.side(CONNECTIONS[0]))
            findings.compare("api_key", *samples, note=refusals(side))
        place.verify()
        open_place.verify()


def mixed_beside_transfers(lab: Lab, plan: Plan, findings: Findings) -> None:
    """Funds and transfers, half and half, beside transfers alone, both by our API. Neither side publishes."""
    template = lab.template(WALLETS)
    since = queries.value(lab.postgres_url, queries.NOW)
    with lab.place(template) as place, lab.place(template) as peer_place:
        with our_api(lab, place) as ours, our_api(lab, peer_place) as peer:
            side = ours.side(CONNECTIONS[0], "mixed")
            samples = in_turn(plan, side, peer.side(CONNECTIONS[0]))
        shared = [queries.value(one.url, queries.MOVEMENTS_A_COMMIT, since) for one in (place, peer_place)]
        place.verify()
        peer_place.verify()
    commits = [median(found) / movements for found, movements in zip(samples, shared, strict=True)]
    findings.compare("mixed_money", *samples, note=refusals(side))
    findings.compare("mixed_commits", shared[:1], shared[1:], "{:,.0f} commits/s, beside {:,.0f}".format(*commits))


def batches_beside_transfers(lab: Lab, plan: Plan, findings: Findings) -> None:
    """Transfers in batches of 100, beside one transfer a request on as many connections, both by our API.

    Neither side publishes. When a round ends, batches have a hundred times as much under way. So the ledger is counted,
    not the replies, and each round waits for what the one before has left.
    """
    template = lab.template(WALLETS)
    for connections, operation in BATCH_LOADS:
        with lab.place(template) as place, lab.place(template) as peer_place:
            with our_api(lab, place) as ours, our_api(lab, peer_place) as peer:
                side = ours.side(connections, operation)
                sides = _by_ledger(place, side), _by_ledger(peer_place, peer.side(connections))
                findings.compare(f"{operation}_{connections}", *in_turn(plan, *sides), note=refusals(side))
            place.verify()
            peer_place.verify()


def _by_ledger(place: Place, side: HttpSide) -> Side:
    """Return the load with the rate of the movements that were committed while it lasted."""

    def ask(seconds: float) -> float:
        before = queries.value(place.url, queries.MOVEMENTS)
        side(seconds)
        made = queries.value(place.url, queries.MOVEMENTS) - before
        place.settle()
        return float(made / side.answers[-1].seconds)

    return ask


@dataclass
class Server:
    """A server under load, with all its loads.

    Attributes:
        service: the server's process.
        ids: the file of its wallets' ids.
        api_key: the key that the load sends.
        finish: called after each load.
        sides: its loads.
    """

    service: Service
    ids: Path
    api_key: str = field(repr=False)
    finish: Callable[[], None] = lambda: None
    sides: list[HttpSide] = field(default_factory=list)

    def side(
        self, connections: int, operation: wrk.Operation = "transfer", *, hot: bool = False, rate: float = 0
    ) -> HttpSide:
        """Return another load on this server; funds are always of the hot wallet."""
        load = Load(operation, self.ids, hot or operation == "fund", self.api_key)
        side = HttpSide(self.service.url, load, connections, rate, self.finish)
        self.sides.append(side)
        return side


@contextmanager
def our_api(lab: Lab, place: Place, wallets: int = WALLETS, **environment: str) -> Iterator[Server]:
    """Run our API during the block; then compare its replies with the ledger."""
    before = queries.value(place.url, queries.MOVEMENTS)
    ids = wrk.ids_file(lab.directory, [row[0] for row in queries.fetch(place.url, queries.WALLET_IDS, wallets)])
    api_key = place.new_key()
    with lab.service(place, "api", **environment) as service:
        server = Server(service, ids, api_key)
        yield server
    check_answers(place, server.sides, before)


@contextmanager
def _ours_and_orm(lab: Lab) -> Iterator[tuple[Server, Server]]:
    template = lab.template(WALLETS)
    with lab.place(template) as place, lab.place(template) as peer_place:
        with (
            lab.service(place, "relay"),
            our_api(lab, place) as ours,
            orm.running(lab, peer_place) as peer,
        ):
            place.drain()
            ours.finish = place.drain
            yield ours, Server(peer, ours.ids, ours.api_key)
        place.verify()


@contextmanager
def _ours_and_pgbench(lab: Lab) -> Iterator[tuple[Server, str]]:
    template = lab.template(WALLETS)
    with lab.place(template) as place, lab.place(template) as peer_place:
        with our_api(lab, place) as ours:
            yield ours, peer_place.url
        place.verify()
        # The peer's rows pass the same check, so it did the same work.
        peer_place.verify()
