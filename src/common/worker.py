"""A worker is one step repeated until it is told to stop."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog
import uvloop

from common.garbage_collector import tune_garbage_collector
from common.http.probes import WARNING
from common.http.server import BackgroundServer
from common.pauses import FAILURE_PAUSES, Pauses, pause

log = structlog.get_logger()


@dataclass
class Health:
    """What a worker says on `/ready`: each dependency and `"ok"`, or what is wrong with it."""

    checks: dict[str, str] = field(default_factory=dict)

    def ok(self, *dependencies: str) -> None:
        """Note that these answer."""
        self.checks.update(dict.fromkeys(dependencies, "ok"))

    def warn(self, subject: str, warning: str) -> None:
        """Note what is wrong, though the worker works."""
        self.checks[subject] = f"{WARNING}{warning}"

    def failed(self, dependency: str, error: BaseException | str) -> None:
        """Note what is wrong with this one."""
        self.checks[dependency] = str(error) or repr(error)

    async def __call__(self) -> dict[str, str]:
        """Return the checks; shaped for `probe_routes`."""
        return dict(self.checks)


class TemporaryError(Exception):
    """A step failed in a way that time may heal; `dependency` is what was away."""

    def __init__(self, dependency: str, error: BaseException | str) -> None:
        super().__init__(f"{dependency}: {error}")
        self.dependency = dependency


async def repeat(
    step: Callable[[], Awaitable[int]],
    *,
    stop: asyncio.Event,
    idle: Pauses,
    health: Health,
    on_failure: Callable[[str], None],
    pause_idle: Callable[[asyncio.Event, float], Awaitable[bool]] = pause,
) -> None:
    """Call `step` until `stop`, at once after it did something, with growing pauses when idle.

    Args:
        step: returns how much it did; raises TemporaryError when a server is away. Any other exception
            ends the worker, and the supervisor starts another.
        stop: set to finish: the step under way ends, no other begins.
        idle: the pauses while there is nothing to do.
        health: notes which server is away.
        on_failure: counts failures by dependency.
        pause_idle: pauses while there is nothing to do, at most until `stop`; returns whether it was told of work.
    """
    idle_count = failure_count = 0
    while not stop.is_set():
        try:
            done = await step()
        except TemporaryError as error:
            failure_count += 1
            health.failed(error.dependency, error)
            on_failure(error.dependency)
            wait_seconds = FAILURE_PAUSES.after(failure_count)
            log.warning("step_failed", error=str(error), failures=failure_count, pause_seconds=wait_seconds)
            await pause(stop, wait_seconds)
            continue
        failure_count = 0
        idle_count = 0 if done else idle_count + 1
        if idle_count and await pause_idle(stop, idle.after(idle_count)):
            idle_count = 0


def run_worker(work: Coroutine[Any, Any, None]) -> None:
    """Run a worker to its end."""
    tune_garbage_collector()
    uvloop.run(work)


def stop_on_signals(stop: asyncio.Event) -> None:
    """Let the first SIGTERM or SIGINT set `stop` (drain and leave), the second end the process at once."""
    loop = asyncio.get_running_loop()

    def on_signal(received: signal.Signals) -> None:
        log.info("stop_requested", signal=received.name)
        stop.set()
        loop.remove_signal_handler(received)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


async def _logged(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception as error:
        log.critical("worker_failed", exc_info=error)
        raise


async def serve_until_stopped(server: BackgroundServer, work: Awaitable[None]) -> None:
    """Run a worker beside its ops server; when either ends, end the other."""
    serving = asyncio.create_task(server.serve())
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({serving, working}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await _logged(working)
        else:
            await serving
            raise RuntimeError("the ops server ended: is its port taken?")
    finally:
        server.should_exit = True
        working.cancel()
        await asyncio.gather(serving, working, return_exceptions=True)
