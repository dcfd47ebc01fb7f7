"""Resident memory, and its growth."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from statistics import median
from typing import Final

import psutil

from benchmarks.lab import Lab, Service
from benchmarks.measures.http import CONNECTIONS, our_api
from benchmarks.plan import WALLETS, Plan
from benchmarks.results import Findings

PAUSE_SECONDS: Final = 0.25
MIB: Final = 2**20
REQUESTS_A_SECOND_MIN: Final = 1000
"""If the API is slower, its memory is measured after fewer requests."""

Samples = dict[str, list[float]]
"""Resident memory of a service's largest process, in MiB, in time order."""


def memory_after(lab: Lab, plan: Plan, findings: Findings) -> None:
    """The API's memory after many requests; the relay's and the consumer's after many events."""
    with lab.place(lab.template(WALLETS)) as place:
        with lab.service(place, "relay"), our_api(lab, place) as api, _sampled({"api": api.service}) as samples:
            side, done, left_seconds = api.side(CONNECTIONS[0]), 0, plan.memory_requests / REQUESTS_A_SECOND_MIN
            while done < plan.memory_requests and left_seconds > 0:
                side(plan.load_seconds)
                done += side.answers[-1].done
                left_seconds -= plan.load_seconds
            place.drain()
        place.verify()
    _judge(findings, samples, f"after {done:,} requests")

    with lab.place(lab.template(WALLETS, plan.memory_events // WALLETS)) as place:
        with ExitStack() as stack:
            roles = ("relay", "consumer")
            services = {role: stack.enter_context(lab.service(place, role)) for role in roles}
            samples = stack.enter_context(_sampled(services))
            place.drain()
            place.catch_up()
        events = place.record_count()
        place.verify()
    _judge(findings, samples, f"after {events:,} events")


def _judge(findings: Findings, samples: Samples, note: str) -> None:
    for role, found in samples.items():
        third = len(found) // 3
        findings.judge(f"memory_{role}", [max(found)], note)
        findings.compare(f"memory_{role}_growth", [median(found[-third:])], [median(found[third : 2 * third])], note)


@contextmanager
def _sampled(services: dict[str, Service]) -> Iterator[Samples]:
    samples: Samples = {role: [] for role in services}
    stopped = threading.Event()

    def sample() -> None:
        while not stopped.wait(PAUSE_SECONDS):
            for role, service in services.items():
                samples[role].append(_resident_mib(service.pid))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stopped.set()
        thread.join()


def _resident_mib(pid: int) -> float:
    process = psutil.Process(pid)
    sizes = []
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            sizes.append(one.memory_info().rss / MIB)
    return max(sizes)
