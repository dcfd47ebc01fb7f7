"""Group commit: requests that arrive together share one transaction.

A batch is what has gathered while the last one was on its way: one request alone waits for nothing, and the more
there are the more share the round trips, the locks and the flush of one commit. (PostgreSQL groups only the
flush: manual, section 28.5, `commit_delay`.)

Nobody pays for a neighbour:

- a refused command is an outcome like any other;
- wallets that others hold for longer than a moment are left out of the batch; who wants them waits alone;
- a batch that fails as a whole, and is known not to be committed, is run again one by one;
- a client that leaves is left out, or its command goes on without it.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic

from sqlalchemy.ext.asyncio import AsyncEngine

from common.database import is_unreachable
from common.problems import Unavailable
from wallet_api import metrics
from wallet_api.errors import VersionConflict, WalletBusy
from wallet_api.transactions import execute
from wallet_api.use_cases import CommandT, Outcome, UseCase

_ALONE_MAX: Final = 4
_RACE_PAUSE_FIRST_SECONDS: Final = 0.001
_RACE_PAUSE_LONGEST_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Bounds:
    """What bounds a collector.

    Args:
        batch_commands: commands in a transaction at most.
        queue_commands: commands that wait at most; one more is refused.
        race_attempts: how often a command may lose the race for its wallet's version.
        transaction_seconds: a transaction that takes longer is given up, its outcome unknown.
        lock_timeout_seconds: how long a command that waits alone waits for a lock.
    """

    batch_commands: int
    queue_commands: int
    race_attempts: int
    transaction_seconds: float
    lock_timeout_seconds: float


@dataclass(slots=True, eq=False)
class _Waiting(Generic[CommandT]):
    command: CommandT
    outcome: asyncio.Future[Outcome]
    attempts: int = 1

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


class GroupCommit(Generic[CommandT]):
    """Collects commands of one kind and runs them, batch after batch.

    Args:
        operation: the name under which they are counted.
        engine: of the wallet's database; its `lock_timeout` is how long a batch waits for a lock.
        use_case: what a batch runs.
        bounds: of batch, queue and waits.
        on_commit: called after each transaction.
        passing_over: the use case that leaves out what is locked, if there is one: it answers WalletBusy.
    """

    def __init__(
        self,
        operation: str,
        engine: AsyncEngine,
        use_case: UseCase[CommandT],
        bounds: Bounds,
        on_commit: Callable[[], None],
        passing_over: UseCase[CommandT] | None = None,
    ) -> None:
        self._engine = engine
        self._use_case = use_case
        self._passing_over = passing_over
        self._bounds = bounds
        self._on_commit = on_commit
        self._queue: deque[_Waiting[CommandT]] = deque()
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._alone = asyncio.Semaphore(_ALONE_MAX)
        self._batch_commands = metrics.batch_commands.labels(operation)

    async def submit(self, command: CommandT) -> Outcome:
        """Run the command with others, and return its outcome after the commit.

        Raises:
            Problem: nothing was done; Unavailable when the queue is full.
            sqlalchemy.exc.DBAPIError: the database refuses or is away.
            TimeoutError: it took too long; nothing is known of the outcome.
        """
        if len(self._queue) >= self._bounds.queue_commands:
            raise Unavailable("The server has all that it can do at once. Ask again later.")
        waiting = _Waiting(command, asyncio.get_running_loop().create_future())
        self._enqueue(waiting)
        return await waiting.outcome

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _enqueue(self, waiting: _Waiting[CommandT]) -> None:
        self._queue.append(waiting)
        if not self._draining:
            self._draining = True
            self._spawn(self._drain())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _drain(self) -> None:
        try:
            while batch := self._next_batch():
                await self._run(batch)
        finally:
            self._draining = False

    def _next_batch(self) -> list[_Waiting[CommandT]]:
        """Take the next batch off the queue; of one idempotency key only the first, since the next waits for it."""
        batch: list[_Waiting[CommandT]] = []
        keys: set[str] = set()
        later: list[_Waiting[CommandT]] = []
        while self._queue and len(batch) < self._bounds.batch_commands:
            waiting = self._queue.popleft()
            claim = waiting.command.claim
            if waiting.outcome.done():
                continue
            if claim and claim.key in keys:
                later.append(waiting)
                continue
            if claim:
                keys.add(claim.key)
            batch.append(waiting)
        self._queue.extendleft(reversed(later))
        return batch

    async def _run(self, batch: Sequence[_Waiting[CommandT]]) -> None:
        self._batch_commands.observe(len(batch))
        try:
            outcomes = await self._execute_together(batch)
        except Exception as error:  # noqa: BLE001 - each of them goes to those who wait
            if is_unreachable(error):
                for waiting in batch:
                    waiting.fail(error)
            else:
                self._run_alone(batch)
            return
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, WalletBusy):
                self._run_alone([waiting])
            else:
                self._settle(waiting, outcome)

    async def _execute_together(self, batch: Sequence[_Waiting[CommandT]]) -> list[Outcome]:
        try:
            return await self._execute(self._use_case, batch)
        except WalletBusy:
            if self._passing_over is None:
                raise
            return await self._execute(self._passing_over, batch)

    async def _execute(
        self,
        use_case: UseCase[CommandT],
        batch: Sequence[_Waiting[CommandT]],
        lock_timeout_seconds: float | None = None,
    ) -> list[Outcome]:
        commands = [waiting.command for waiting in batch]
        async with asyncio.timeout(self._bounds.transaction_seconds + (lock_timeout_seconds or 0)):
            outcomes = await execute(self._engine, use_case, commands, lock_timeout_seconds)
        self._on_commit()
        return outcomes

    def _run_alone(self, batch: Sequence[_Waiting[CommandT]]) -> None:
        for waiting in batch:
            cancel = self._spawn(self._execute_alone(waiting)).cancel
            # Waiting for a lock takes long, and is of no use to a client that has left.
            waiting.outcome.add_done_callback(partial(_call, cancel))

    async def _execute_alone(self, waiting: _Waiting[CommandT]) -> None:
        async with self._alone:
            try:
                outcomes = await self._execute(self._use_case, [waiting], self._bounds.lock_timeout_seconds)
            except Exception as error:  # noqa: BLE001 - it goes to the one who waits
                waiting.fail(error)
                return
        self._settle(waiting, outcomes[0])

    def _settle(self, waiting: _Waiting[CommandT], outcome: Outcome) -> None:
        if waiting.outcome.done():
            return
        if isinstance(outcome, VersionConflict) and waiting.attempts < self._bounds.race_attempts:
            metrics.transaction_retries.labels("version").inc()
            longest = min(_RACE_PAUSE_FIRST_SECONDS * 2**waiting.attempts, _RACE_PAUSE_LONGEST_SECONDS)
            waiting.attempts += 1
            asyncio.get_running_loop().call_later(random.uniform(0, longest), self._enqueue, waiting)  # noqa: S311
        else:
            waiting.outcome.set_result(outcome)


def _call(function: Callable[[], object], _: object) -> None:
    function()
