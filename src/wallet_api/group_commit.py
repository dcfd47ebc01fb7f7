"""Group commit: concurrent requests share one transaction; a failing request does not fail the other requests.

While one batch runs, the next batch gathers. After a batch of several commands it gathers for two milliseconds more.
A request that finds no batch before it waits for nothing. The more requests there are, the more of them share the round
trips, the locks and the flush of one commit. (PostgreSQL groups only the flush: manual, section 28.5, `commit_delay`.)

What keeps the requests of a batch apart:

- a refused command has a reply like any other command;
- a command whose wallet or key another transaction has locked is skipped, and retried in a later batch;
- a batch that fails before its commit is run again in halves, until the command that made it fail is alone;
- a command whose client disconnects before its batch is left out; later it goes on without the client.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.background import is_told_to_end
from common.postgres.errors import LOCK_NOT_AVAILABLE, is_sequence_behind, is_unreachable, sqlstate, unavailable
from common.problems import Unavailable
from common.rate_limited_logs import RateLimitedLog
from wallet_api import metrics
from wallet_api.commands import CommandT, IdempotencyKey
from wallet_api.errors import IdempotencyKeyInFlight, VersionConflict, WalletBusy
from wallet_api.replies import Reply, problem_reply
from wallet_api.retries import CommandRetry
from wallet_api.transactions import OutcomeUnknown, execute
from wallet_api.use_cases import UseCase

log = RateLimitedLog(structlog.get_logger())

_UNKNOWN: Final = "The outcome is unknown. Retry with the same idempotency key."

# After a batch has timed out on a lock, batches skip locked wallets for so long.
_SKIP_LOCKED_SECONDS: Final = 2.0
# Clients that were just answered ask again within this time, and share one batch instead of two. After a few commands
# the next batch starts at once.
_GATHER_SECONDS: Final = 0.002
_MANY_COMMANDS: Final = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a group commit.

    Args:
        batch_commands: commands in a transaction at most.
        queue_commands: commands in the queue at most; one more is refused.
        transaction_timeout_seconds: a transaction that takes longer is abandoned.
    """

    batch_commands: int
    queue_commands: int
    transaction_timeout_seconds: float


@dataclass(slots=True, eq=False)
class _Submission(Generic[CommandT]):
    """A command between its submission and its reply. `submitted_at` is the event loop's time, in seconds."""

    command: CommandT
    reply: asyncio.Future[Reply]
    submitted_at: float
    version_attempts: int = 0

    def answer(self, reply: Reply) -> None:
        """Return the reply from `submit`."""
        if not self.reply.done():
            self.reply.set_result(reply)

    def fail(self, error: Exception) -> None:
        """Raise the error from `submit`. Each submission needs its own: each raise adds to the error's traceback."""
        if not self.reply.done():
            self.reply.set_exception(error)


class GroupCommit(Generic[CommandT]):
    """Collects commands of one kind and runs them, batch after batch, one at a time.

    Args:
        operation: the name under which they are counted.
        engine: of the wallet database; its `lock_timeout` is how long a batch waits for a lock.
        use_case: what a batch runs.
        skipping: the same, but a command whose wallet is locked gets wallet-busy without a wait.
        bounds: of batch, queue and transaction.
        retry: when a command is put into a later batch.
        on_commit: called after each transaction, with the number of its commands.
    """

    def __init__(
        self,
        operation: str,
        engine: AsyncEngine,
        use_case: UseCase[CommandT],
        skipping: UseCase[CommandT],
        bounds: Bounds,
        retry: CommandRetry,
        on_commit: Callable[[int], None],
    ) -> None:
        self._engine = engine
        self._use_case = use_case
        self._skipping = skipping
        self._bounds = bounds
        self._retry = retry
        self._on_commit = on_commit
        self._queue: deque[_Submission[CommandT]] = deque()
        self._unanswered: set[_Submission[CommandT]] = set()
        self._draining: asyncio.Task[None] | None = None
        self._skip_locked_until = 0.0
        self._batch_commands = metrics.batch_commands.labels(operation)

    async def submit(self, command: CommandT) -> Reply:
        """Run the command in a batch, and return its reply after the commit.

        Raises:
            Unavailable: the queue is full or the database is away, and nothing was done; or the outcome is unknown.
            Exception: any other means that nothing was done: an asyncpg or a DBAPIError where the database refuses.
        """
        if len(self._queue) >= self._bounds.queue_commands:
            raise Unavailable("The server is at capacity. Retry later.")
        loop = asyncio.get_running_loop()
        submission = _Submission(command, loop.create_future(), loop.time())
        self._unanswered.add(submission)
        try:
            self._enqueue(submission)
            return await submission.reply
        finally:
            self._unanswered.discard(submission)

    async def close(self) -> None:
        """Abandon the batch in progress and fail all commands without a reply."""
        if self._draining:
            self._draining.cancel()
            await asyncio.wait({self._draining})
        for submission in self._unanswered:
            submission.fail(Unavailable("The server is shutting down. Retry with the same idempotency key."))

    def _enqueue(self, submission: _Submission[CommandT]) -> None:
        self._queue.append(submission)
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        while batch := self._next_batch():
            try:
                await self._run(batch)
            except (Exception, asyncio.CancelledError) as error:
                if is_told_to_end():
                    raise
                # A defect. It must not end the task that answers all later commands.
                log.defect("batch_lost", error=error, commands=len(batch))
                for submission in batch:
                    submission.fail(Unavailable(_UNKNOWN))
            if len(batch) >= _MANY_COMMANDS:
                await asyncio.sleep(_GATHER_SECONDS)

    def _next_batch(self) -> list[_Submission[CommandT]]:
        """Take the next batch off the queue; of one idempotency key only the first command, since the next waits."""
        batch: list[_Submission[CommandT]] = []
        keys: set[IdempotencyKey] = set()
        later: list[_Submission[CommandT]] = []
        while self._queue and len(batch) < self._bounds.batch_commands:
            submission = self._queue.popleft()
            claim = submission.command.claim
            if submission.reply.done():
                continue
            if claim and claim.key in keys:
                later.append(submission)
                continue
            if claim:
                keys.add(claim.key)
            batch.append(submission)
        self._queue.extendleft(reversed(later))
        return batch

    async def _run(self, batch: Sequence[_Submission[CommandT]]) -> None:
        self._batch_commands.observe(len(batch))
        try:
            replies = await self._execute([submission.command for submission in batch])
        except OutcomeUnknown as unknown:
            log.warning("commit_unconfirmed", error=unknown.__cause__, commands=len(batch))
            for submission in batch:
                submission.fail(Unavailable(_UNKNOWN))
        except Exception as error:  # noqa: BLE001 - each submission gets it
            if is_unreachable(error) or is_sequence_behind(error):
                log.warning("batch_failed_server_away", error=error, commands=len(batch))
                for submission in batch:
                    submission.fail(unavailable(error))
            elif len(batch) > 1:
                half = len(batch) // 2
                await self._run(batch[:half])
                await self._run(batch[half:])
            elif sqlstate(error) == LOCK_NOT_AVAILABLE:
                batch[0].answer(_lock_timeout_reply(error, batch[0].command.path))
            else:
                batch[0].fail(error)
        else:
            for submission, reply in zip(batch, replies, strict=True):
                self._answer_or_retry(submission, reply)

    async def _execute(self, commands: Sequence[CommandT]) -> list[Reply]:
        clock = asyncio.get_running_loop().time
        if clock() >= self._skip_locked_until:
            try:
                return await self._execute_as(self._use_case, commands)
            except Exception as error:
                if sqlstate(error) != LOCK_NOT_AVAILABLE:
                    raise
                self._skip_locked_until = clock() + _SKIP_LOCKED_SECONDS
        return await self._execute_as(self._skipping, commands)

    async def _execute_as(self, use_case: UseCase[CommandT], commands: Sequence[CommandT]) -> list[Reply]:
        replies = await execute(self._engine, use_case, commands, self._bounds.transaction_timeout_seconds)
        self._on_commit(len(commands))
        return replies

    def _answer_or_retry(self, submission: _Submission[CommandT], reply: Reply) -> None:
        if submission.reply.done():
            return
        loop = asyncio.get_running_loop()
        submission.version_attempts += reply.outcome == VersionConflict.code
        age_seconds = loop.time() - submission.submitted_at
        pause_seconds = self._retry.pause_seconds(reply.outcome, submission.version_attempts, age_seconds)
        if pause_seconds is None:
            submission.answer(reply)
        else:
            metrics.transaction_retries.labels(reply.outcome).inc()
            loop.call_later(pause_seconds, self._enqueue, submission)


def _lock_timeout_reply(error: Exception, path: str) -> Reply:
    # One statement writes wallets and keys; PostgreSQL's CONTEXT alone tells at which of them it waited.
    is_key = "idempotency_keys" in (getattr(error, "context", None) or "")
    return problem_reply(IdempotencyKeyInFlight() if is_key else WalletBusy(), path)
