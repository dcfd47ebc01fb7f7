"""Group commit: requests that arrive together share one transaction.

A batch is what has gathered while the last one was on its way, and, behind one of several commands, in two
milliseconds more. One request alone waits for nothing, and the more there are the more share the round trips, the
locks and the flush of one commit. (PostgreSQL groups only the flush: manual, section 28.5, `commit_delay`.)

Nobody pays for a neighbour:

- a refused command is an outcome like any other;
- wallets and keys that others hold are passed over; who wants them asks again with the next batches;
- a batch that fails before its commit is run again in halves, until what made it fail is alone;
- a client that leaves is left out, or its command goes on without it.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.background import is_told_to_end
from common.postgres.errors import is_unreachable, unavailable
from common.problems import Unavailable
from common.rate_limited_logs import RateLimitedLog
from wallet_api import metrics
from wallet_api.errors import IdempotencyKeyInFlight, VersionConflict, WalletBusy
from wallet_api.transactions import OutcomeUnknown, execute
from wallet_api.use_cases import CommandT, Outcome, UseCase

log = RateLimitedLog(structlog.get_logger())

_UNKNOWN: Final = "It may have been done or not. Ask again with the same key."

_RACE_PAUSE_FIRST_SECONDS: Final = 0.001
_RACE_PAUSE_LONGEST_SECONDS: Final = 0.05
_LOCK_PAUSE_SECONDS: Final = 0.03
# After one batch has waited for a lock in vain, later ones don't, for so long.
_PASSING_OVER_SECONDS: Final = 2.0
# Those who were just answered ask again in this time, and share a batch instead of two. A few don't wait for others.
_GATHER_SECONDS: Final = 0.002
_MANY_COMMANDS: Final = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """What bounds a collector.

    Args:
        batch_commands: commands in a transaction at most.
        queue_commands: commands that wait at most; one more is refused.
        race_attempts: how often a command may lose the race for its wallet's version.
        lock_timeout_seconds: how long a command asks again for what others hold.
        transaction_timeout_seconds: a transaction that takes longer is given up.
    """

    batch_commands: int
    queue_commands: int
    race_attempts: int
    lock_timeout_seconds: float
    transaction_timeout_seconds: float


@dataclass(slots=True, eq=False)
class _Waiting(Generic[CommandT]):
    command: CommandT
    outcome: asyncio.Future[Outcome]
    locks_until: float
    """The event loop's time until which it asks again for locks."""
    attempts: int = 1

    def fail(self, error: Exception) -> None:
        """Raise the error where the outcome is waited for. It is that one's alone: each raise adds to its traceback."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


class GroupCommit(Generic[CommandT]):
    """Collects commands of one kind and runs them, batch after batch, one at a time.

    Args:
        operation: the name under which they are counted.
        engine: of the wallet's database; its `lock_timeout` is how long a batch waits for a lock.
        use_case: what a batch runs.
        passing_over: the same, but what others hold is not waited for: such a command's outcome is WalletBusy.
        bounds: of batch, queue and waits.
        on_commit: called after each transaction, with how many commands were in it.
    """

    def __init__(
        self,
        operation: str,
        engine: AsyncEngine,
        use_case: UseCase[CommandT],
        passing_over: UseCase[CommandT],
        bounds: Bounds,
        on_commit: Callable[[int], None],
    ) -> None:
        self._engine = engine
        self._use_case = use_case
        self._passing_over = passing_over
        self._bounds = bounds
        self._on_commit = on_commit
        self._queue: deque[_Waiting[CommandT]] = deque()
        self._unanswered: set[_Waiting[CommandT]] = set()
        self._draining: asyncio.Task[None] | None = None
        self._pass_over_until = 0.0
        self._batch_commands = metrics.batch_commands.labels(operation)

    async def submit(self, command: CommandT) -> Outcome:
        """Run the command with others, and return its outcome after the commit.

        Raises:
            Unavailable: the queue is full or the database is away, and nothing was done; or nobody knows whether it was
                done.
            Exception: any other means that nothing was done: a Problem, an asyncpg or a DBAPIError where the
                database refuses.
        """
        if len(self._queue) >= self._bounds.queue_commands:
            raise Unavailable("The server has all that it can do at once. Ask again later.")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(command, loop.create_future(), loop.time() + self._bounds.lock_timeout_seconds)
        self._unanswered.add(waiting)
        try:
            self._enqueue(waiting)
            return await waiting.outcome
        finally:
            self._unanswered.discard(waiting)

    async def close(self) -> None:
        """Give up what is under way and answer everybody who still waits."""
        if self._draining:
            self._draining.cancel()
            await asyncio.wait({self._draining})
        for waiting in self._unanswered:
            waiting.fail(Unavailable("The server is going down. Ask again with the same key."))

    def _enqueue(self, waiting: _Waiting[CommandT]) -> None:
        self._queue.append(waiting)
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        while batch := self._next_batch():
            try:
                await self._run(batch)
            except (Exception, asyncio.CancelledError) as error:
                if is_told_to_end():
                    raise
                # A defect. It is not to end what answers all the others.
                log.defect("batch_lost", error=error, commands=len(batch))
                for waiting in batch:
                    waiting.fail(Unavailable(_UNKNOWN))
            if len(batch) >= _MANY_COMMANDS:
                await asyncio.sleep(_GATHER_SECONDS)

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
            outcomes = await self._execute([waiting.command for waiting in batch])
        except OutcomeUnknown as unknown:
            log.warning("commit_unconfirmed", error=unknown.__cause__, commands=len(batch))
            for waiting in batch:
                waiting.fail(Unavailable(_UNKNOWN))
        except Exception as error:  # noqa: BLE001 - each of them goes to those who wait
            if is_unreachable(error):
                log.warning("batch_failed_server_away", error=error, commands=len(batch))
                for waiting in batch:
                    waiting.fail(unavailable(error))
            elif len(batch) > 1:
                half = len(batch) // 2
                await self._run(batch[:half])
                await self._run(batch[half:])
            else:
                batch[0].fail(error)
        else:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                self._settle(waiting, outcome)

    async def _execute(self, commands: Sequence[CommandT]) -> list[Outcome]:
        clock = asyncio.get_running_loop().time
        if clock() >= self._pass_over_until:
            try:
                return await self._execute_as(self._use_case, commands)
            except WalletBusy:
                self._pass_over_until = clock() + _PASSING_OVER_SECONDS
        return await self._execute_as(self._passing_over, commands)

    async def _execute_as(self, use_case: UseCase[CommandT], commands: Sequence[CommandT]) -> list[Outcome]:
        outcomes = await execute(self._engine, use_case, commands, self._bounds.transaction_timeout_seconds)
        self._on_commit(len(commands))
        return outcomes

    def _settle(self, waiting: _Waiting[CommandT], outcome: Outcome) -> None:
        if waiting.outcome.done():
            return
        loop = asyncio.get_running_loop()
        if isinstance(outcome, VersionConflict) and waiting.attempts < self._bounds.race_attempts:
            longest = min(_RACE_PAUSE_FIRST_SECONDS * 2**waiting.attempts, _RACE_PAUSE_LONGEST_SECONDS)
            pause_seconds = random.uniform(0, longest)  # noqa: S311
            waiting.attempts += 1
        elif isinstance(outcome, WalletBusy | IdempotencyKeyInFlight) and loop.time() < waiting.locks_until:
            pause_seconds = _LOCK_PAUSE_SECONDS
        else:
            waiting.outcome.set_result(outcome)
            return
        metrics.transaction_retries.labels(outcome.code).inc()
        loop.call_later(pause_seconds, self._enqueue, waiting)
