"""A worker repeats one step until it is told to stop."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
import uvloop

from common.checks import WARNING
from common.garbage_collector import tune_garbage_collector
from common.http.server import BackgroundServer
from common.pauses import FAILURE_PAUSES, Pauses, pause
from common.postgres.errors import is_temporary, message_with_remedy

log = structlog.get_logger()


@dataclass
class Health:
    """A worker's checks for `/ready`: each dependency is `"ok"`, or has a message that says what is wrong."""

    checks: dict[str, str] = field(default_factory=dict)

    def ok(self, *dependencies: str) -> None:
        """Set these dependencies to `"ok"`."""
        self.checks.update(dict.fromkeys(dependencies, "ok"))

    def warn(self, subject: str, warning: str) -> None:
        """Set a warning, with which the worker still counts as ready."""
        self.checks[subject] = f"{WARNING}{warning}"

    def failed(self, dependency: str, error: BaseException | str) -> None:
        """Set the dependency to the error's message, with which the worker counts as not ready."""
        self.checks[dependency] = str(error) or repr(error)

    async def __call__(self) -> dict[str, str]:
        """Return the checks, as `probe_routes` expects them."""
        return dict(self.checks)


class TemporaryError(Exception):
    """A step failed, and a later retry may succeed; `dependency` is the server that was away."""

    def __init__(self, dependency: str, error: BaseException | str) -> None:
        super().__init__(f"{dependency}: {error}")
        self.dependency = dependency


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn an error of PostgreSQL that may pass into TemporaryError; any other error stays what it is."""
    try:
        yield
    except Exception as error:
        if is_temporary(error):
            raise TemporaryError("database", message_with_remedy(error)) from error
        raise


@asynccontextmanager
async def database_deadline(seconds: float) -> AsyncIterator[None]:
    """Bound the block's time in the database; turn errors that may pass into TemporaryError.

    PostgreSQL's own timeouts do not reach a process whose connection a firewall has dropped.
    """
    with database_errors():
        async with asyncio.timeout(seconds):
            yield


async def repeat(
    step: Callable[[], Awaitable[int]],
    *,
    stop: asyncio.Event,
    idle: Pauses,
    health: Health,
    on_failure: Callable[[str], None],
    pause_idle: Callable[[asyncio.Event, float], Awaitable[bool]] = pause,
) -> None:
    """Repeat `step` until `stop`: at once after a step that found work, else after a pause that grows.

    Args:
        step: returns how much it did. It raises TemporaryError when a server is away. Any other exception ends the
            worker, and the supervisor starts a new one.
        stop: ends the worker after the step under way.
        idle: the pauses while there is no work.
        health: gets the error of the server that is away.
        on_failure: counts failures by dependency.
        pause_idle: waits while there is no work, at most until `stop`; returns whether it was notified of work.
    """
    idle_count = failure_count = 0
    while not stop.is_set():
        try:
            done = await step()
        except TemporaryError as error:
            failure_count += 1
            health.failed(error.dependency, error)
            on_failure(error.dependency)
            pause_seconds = FAILURE_PAUSES.after(failure_count)
            log.warning("step_failed", error=str(error), failures=failure_count, pause_seconds=pause_seconds)
            await pause(stop, pause_seconds)
            continue
        failure_count = 0
        idle_count = 0 if done else idle_count + 1
        if idle_count and await pause_idle(stop, idle.after(idle_count)):
            idle_count = 0


def run_worker(work: Coroutine[Any, Any, None]) -> None:
    """Run a worker on an event loop of its own, to the worker's end."""
    tune_garbage_collector()
    uvloop.run(work)


def stop_on_signals(stop: asyncio.Event) -> None:
    """Have the first SIGTERM or SIGINT set `stop` (drain and exit), and the second end the process at once."""
    loop = asyncio.get_running_loop()

    def on_signal(received: signal.Signals) -> None:
        log.info("stop_requested", signal=received.name)
        stop.set()
        loop.remove_signal_handler(received)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


async def _log_failure(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception as error:
        log.critical("worker_failed", exc_info=error)
        raise


async def serve_until_stopped(server: BackgroundServer, work: Awaitable[None]) -> None:
    """Run a worker beside its ops server. When one of them ends, end the other."""
    serving = asyncio.create_task(server.serve())
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({serving, working}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await _log_failure(working)
        else:
            await serving
            raise RuntimeError("the ops server ended. Is its port in use?")
    finally:
        server.should_exit = True
        working.cancel()
        await asyncio.gather(serving, working, return_exceptions=True)
