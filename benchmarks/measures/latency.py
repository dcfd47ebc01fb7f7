"""Latencies at a steady rate."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import orjson

from benchmarks import queries
from benchmarks.lab import Lab
from benchmarks.measures.http import CONNECTIONS, our_api
from benchmarks.peers import debezium
from benchmarks.place import Place
from benchmarks.plan import WALLETS, Plan
from benchmarks.results import Curve, Findings
from benchmarks.stats import percentile

RATE: Final = 500
PACED_CONNECTIONS: Final = 256
"""So many replies may be outstanding before a request must wait."""

PERCENTS: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)

Windows = list[list[float]]
"""Latencies in milliseconds, round by round."""


def relay_beside_debezium(lab: Lab, plan: Plan, findings: Findings) -> None:
    """From a transfer's commit to the broker's append of its event, at 500 transfers a second over HTTP."""
    ours, peer = (_commit_to_kafka_ms(lab, plan, publishing) for publishing in (_relay, _debezium))
    for name, percent in (("relay_p50", 50), ("relay_p99", 99)):
        findings.compare(name, _percentiles(ours, percent), _percentiles(peer, percent))
    findings.curve("latency", "commit to Kafka, this system", _distribution(ours))
    findings.curve("latency", "commit to Kafka, Debezium", _distribution(peer))


def history_visible(lab: Lab, plan: Plan, findings: Findings) -> None:
    """From a transfer's commit to the commit of its history rows, at 500 transfers a second over HTTP."""
    windows: Windows = []
    with lab.place(lab.template(WALLETS)) as place:
        with lab.service(place, "relay"), lab.service(place, "consumer"), our_api(lab, place) as api:
            ask = api.side(PACED_CONNECTIONS, rate=RATE)
            for _ in range(1 + plan.rounds):
                place.drain()
                place.catch_up()
                since = queries.value(place.url, queries.NOW)
                ask(plan.fixed_rate_seconds)
                place.drain()
                place.catch_up()
                windows.append([1e3 * row[0] for row in queries.fetch(place.url, queries.VISIBLE_SECONDS, since)])
        place.verify()
    for name, percent in (("visible_p50", 50), ("visible_p99", 99)):
        findings.judge(name, _percentiles(windows[1:], percent))
    findings.curve("latency", "commit to visible history", _distribution(windows[1:]))


def api_at_half_rate(lab: Lab, plan: Plan, findings: Findings) -> None:
    """The latency of replies on a schedule of half the API's top rate, while its relay runs."""
    with lab.place(lab.template(WALLETS)) as place:
        with lab.service(place, "relay"), our_api(lab, place) as api:
            place.drain()
            top = api.side(CONNECTIONS[0])
            top(plan.warmup_seconds)
            half = api.side(PACED_CONNECTIONS, rate=top(plan.load_seconds) / 2)
            for _ in range(plan.rounds):
                half(plan.fixed_rate_seconds)
            place.drain()
        place.verify()
    late_ms = max(answers.late_ms_max for answers in half.answers)
    note = f"{half.rate:,.0f} transfers/s; a request waited {late_ms:.1f} ms at most for a free connection"
    findings.judge("api_p99", [answers.latency_ms["99"] for answers in half.answers], note)
    last = half.answers[-1].latency_ms
    findings.curve("latency", "API reply at half rate", [(percent, last[f"{percent:g}"]) for percent in PERCENTS])


def _commit_to_kafka_ms(
    lab: Lab, plan: Plan, publishing: Callable[[Lab, Place], AbstractContextManager[None]]
) -> Windows:
    """Transfer over HTTP in rounds while `publishing` publishes; the first round warms up."""
    with lab.place(lab.template(WALLETS)) as place:
        with publishing(lab, place), our_api(lab, place) as api:
            pending = place.record_count()
            ask = api.side(PACED_CONNECTIONS, rate=RATE)
            since = []
            for _ in range(1 + plan.rounds):
                since.append(queries.value(place.url, queries.NOW))
                ask(plan.fixed_rate_seconds)
            made = queries.fetch(place.url, queries.COMMITTED, since[0])
            place.fill(pending + len(made))
        appended = {orjson.loads(value).get("transaction_id"): at for at, value in place.records()}
        if publishing is _relay:
            place.verify()
    windows: Windows = [[] for _ in since]
    for row in made:
        at = appended[str(row["transaction_id"])]
        windows[bisect_right(since, row["created_at"]) - 1].append(1e3 * (at - row["committed_at"]))
    return windows[1:]


@contextmanager
def _relay(lab: Lab, place: Place) -> Iterator[None]:
    with lab.service(place, "relay"):
        place.drain()
        yield


@contextmanager
def _debezium(lab: Lab, place: Place) -> Iterator[None]:
    with debezium.slot(place), debezium.running(lab, place):
        yield


def _percentiles(windows: Windows, percent: float) -> list[float]:
    return [percentile(window, percent) for window in windows]


def _distribution(windows: Sequence[Sequence[float]]) -> Curve:
    everything = [latency for window in windows for latency in window]
    return [(percent, percentile(everything, percent)) for percent in PERCENTS]
