"""Keeps one process running: starts it, restarts it with growing pauses, stops it."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from common.pauses import Pauses, pause
from walletctl.stack.errors import RefusedError, failure
from walletctl.stack.launch import Launch, open_log, popen_keywords
from walletctl.stack.leftovers import birth
from walletctl.stack.readiness import until_ready
from walletctl.stack.specs import ProcessSpec
from walletctl.stack.state import ProcessState, Status

RESTART_PAUSES = Pauses(0.2, 10.0)
STEADY_SECONDS = 30.0
"""After a process was ready for this long, its next restart has the shortest pause again."""

REFUSED_PAUSE_SECONDS = 1.0

EARLY_ENDS_MAX = 3
"""If a process ends this often before it is ready for the first time, the start of the stack fails."""

OnStatus = Callable[[str, Status, str], None]
"""Called at every change with the process's name, its new status, and details or an empty text."""


class ManagedProcess:
    """Keeps one process of the stack running.

    Args:
        spec: the process.
        log_file: the file to which its output is appended.
        report: called at every change of its status.
    """

    def __init__(self, spec: ProcessSpec, log_file: Path, report: OnStatus) -> None:
        self.spec = spec
        self.log_file = log_file
        self._report = report
        self._process: Process | None = None
        self._status = Status.STARTING
        self._created: float | None = None
        self._restarts = 0
        self._was_ready = False
        self._problem = ""
        self._failed = ""
        self._settled = asyncio.Event()
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def state(self) -> ProcessState:
        """The process's present state."""
        alive = self._process is not None and self._process.returncode is None
        return ProcessState(
            name=self.spec.name,
            pid=self._process.pid if self._process and alive else None,
            created=self._created if alive else None,
            state=self._status,
            restarts=self._restarts,
            url=self.spec.url,
        )

    async def start(self, timeout_seconds: float) -> None:
        """Start the process and wait until it is ready for the first time.

        Raises:
            StackError: it isn't ready within `timeout_seconds`, or keeps ending.
            SetupError: it keeps ending with exit code 2.
        """
        self._running = asyncio.create_task(self._keep_running(), name=self.spec.name)
        await _first_of(self._running, self._settled, timeout_seconds)
        if self._running.done():
            await self._running
        if not self._was_ready:
            reason = self._failed or f"was not ready within {timeout_seconds:.0f} s ({self._problem})"
            kind = failure(self._process.returncode if self._process else None)
            raise kind(f"{self.spec.name} {reason}, see {self.log_file}", self.log_file)

    async def stop(self, grace_seconds: float, force: asyncio.Event) -> None:
        """Ask the process to end. Kill it after `grace_seconds`, or when `force` is set."""
        self._stopping.set()
        if self._running is None:
            self._change(Status.STOPPED)
            return
        self._signal(self.spec.stop_signal)
        await _first_of(self._running, force, grace_seconds)
        if not self._running.done():
            self._kill()
        await asyncio.gather(self._running, return_exceptions=True)
        self._change(Status.STOPPED)

    async def wait(self) -> None:
        """Wait until the process is stopped.

        Raises:
            Exception: a defect ended the task that restarts the process.
        """
        if self._running is not None:
            await asyncio.shield(self._running)

    async def _keep_running(self) -> None:
        ends_in_a_row = 0
        while not self._stopping.is_set():
            ready_seconds, ending = await self._run_once()
            if self._stopping.is_set():
                return
            ends_in_a_row = 1 if ready_seconds >= STEADY_SECONDS else ends_in_a_row + 1
            if not self._was_ready and ends_in_a_row >= EARLY_ENDS_MAX:
                self._fail("keeps ending")
            self._restarts += 1
            pause_seconds = RESTART_PAUSES.after(ends_in_a_row)
            self._change(Status.RESTARTING, f"{ending}; starting again in {pause_seconds:g} s")
            await pause(self._stopping, pause_seconds)

    async def _run_once(self) -> tuple[float, str]:
        """Start the process and wait for its end; return for how many seconds it was ready, and how it ended."""
        clock = asyncio.get_running_loop().time
        try:
            self._process = await start_process(self.spec.launch(), self.log_file)
        except OSError as error:
            return 0.0, f"could not start: {error}"
        self._created = birth(self._process.pid)
        self._change(Status.RESTARTING if self._restarts else Status.STARTING)
        if self._stopping.is_set():
            self._signal(self.spec.stop_signal)
        ready = await self._become_ready(self._process)
        settled = clock()
        code = await self._process.wait()
        # The process's workers must not outlive it, because they would keep its port.
        self._kill()
        return (clock() - settled if ready else 0.0), ending_of(code)

    async def _become_ready(self, process: Process) -> bool:
        """Wait until the process is ready or has ended; return whether it is ready."""
        probing = asyncio.create_task(self._until_ready())
        ending = asyncio.create_task(process.wait())
        await asyncio.wait({probing, ending}, return_when=asyncio.FIRST_COMPLETED)
        ready = probing.done() and process.returncode is None and not self._stopping.is_set()
        for task in (probing, ending):
            task.cancel()
        await asyncio.gather(probing, ending, return_exceptions=True)
        if ready:
            self._was_ready = True
            self._change(Status.READY)
            self._settled.set()
        return ready

    async def _until_ready(self) -> None:
        while True:
            try:
                return await until_ready(self.spec.probe, self._note)
            except RefusedError as error:
                # At the first start the setup is wrong, and waiting doesn't help. Later the refusal may pass.
                self._note(str(error))
                if not self._was_ready:
                    self._fail(f"refuses the stack: {error}")
                await asyncio.sleep(REFUSED_PAUSE_SECONDS)

    def _note(self, problem: str) -> None:
        self._problem = problem

    def _fail(self, reason: str) -> None:
        """Make the start of the stack fail."""
        self._failed = reason
        self._settled.set()

    def _change(self, status: Status, detail: str = "") -> None:
        self._status = status
        self._report(self.spec.name, status, detail)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _kill(self) -> None:
        """Kill the process and all that is left of its process group."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


async def _first_of(task: "asyncio.Task[None]", event: asyncio.Event, timeout_seconds: float) -> None:
    """Wait for the task's end, the event or the timeout; leave the task running."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def start_process(start: Launch, log_file: Path) -> Process:
    """Start a process and append its output to `log_file`."""
    with open_log(log_file) as log:
        return await asyncio.create_subprocess_exec(
            *start.command, stdin=DEVNULL, stdout=log, stderr=log, **popen_keywords(start)
        )


def ending_of(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
