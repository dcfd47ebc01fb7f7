"""The two sides of a comparison, loaded in turn."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import queries
from benchmarks.load import pgbench, wrk
from benchmarks.load.wrk import Answers, Load, LoadError
from benchmarks.place import Place, PromiseBrokenError
from benchmarks.plan import Plan

Side = Callable[[float], float]
"""Loads one side for so many seconds; returns its rate a second."""


@dataclass
class HttpSide:
    """A server under load by wrk, with all its answers.

    Attributes:
        url: the server's URL.
        load: the requests.
        connections: the number of connections.
        rate: requests a second on a schedule; 0 sends the next as soon as a reply comes.
        finish: called after each load, to finish its work before the next load.
    """

    url: str
    load: Load
    connections: int
    rate: float = 0
    finish: Callable[[], None] = lambda: None
    answers: list[Answers] = field(default_factory=list)

    def __call__(self, seconds: float) -> float:
        """Load the server for so many seconds."""
        self.answers.append(wrk.send(self.url, self.load, self.connections, seconds, self.rate))
        self.finish()
        return self.answers[-1].rate


@dataclass(frozen=True)
class PgbenchSide:
    """A database under load by pgbench."""

    url: str
    script: Path
    clients: int
    wallets: int
    senders: int

    def __call__(self, seconds: float) -> float:
        """Transfer for so many seconds, as fast as possible."""
        started = pgbench.start(
            self.url,
            self.script,
            clients=self.clients,
            wallets=self.wallets,
            senders=self.senders,
            limit=("-T", seconds),
        )
        return pgbench.finish(started)


def in_turn(plan: Plan, ours: Side, peer: Side) -> tuple[list[float], list[float]]:
    """Warm both sides up, then measure them in turn, round by round; return the rates of each.

    Raises:
        LoadError: a round had a rate of 0.
    """
    for side in (ours, peer):
        side(plan.warmup_seconds)
    rounds = [(ours(plan.load_seconds), peer(plan.load_seconds)) for _ in range(plan.rounds)]
    if not all(rate for pair in rounds for rate in pair):
        raise LoadError(f"nothing was done in a round; our rates and the peer's: {rounds}")
    return [pair[0] for pair in rounds], [pair[1] for pair in rounds]


def check_answers(place: Place, sides: Sequence[HttpSide], movements_before: int) -> None:
    """Compare the answers with the ledger: nothing was answered that isn't there, nothing is there twice.

    What was under way when a load ended may have been done without an answer: one request a connection.

    Raises:
        PromiseBrokenError: they differ.
    """
    answered = sum(answers.done for side in sides for answers in side.answers)
    cut_off_max = sum(side.connections * side.load.movements * len(side.answers) for side in sides)
    # All loads of a server are of one kind, where that makes a difference.
    movements_a_key = max((side.load.movements_a_key for side in sides), default=1)
    stored = queries.value(place.url, queries.ANSWERED) * movements_a_key
    moved = queries.value(place.url, queries.MOVEMENTS) - movements_before
    if stored != moved or not answered <= moved <= answered + cut_off_max:
        raise PromiseBrokenError(
            f"{answered} movements were answered with 200, {stored} have a reply under a key, {moved} were made"
        )


def refusals(side: HttpSide) -> str:
    """Return the counts of replies other than 200, for the line's note."""
    total = sum((Counter(answers.refused) for answers in side.answers), Counter[str]())
    return ", ".join(f"{count} replies with {status}" for status, count in sorted(total.items()))
