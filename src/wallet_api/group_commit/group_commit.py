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
from wallet_api.commands import CommandT
from wallet_api.errors import IdempotencyKeyInFlight, VersionConflict, WalletBusy
from wallet_api.group_commit.command_queue import Answer, CommandQueue, Submission
from wallet_api.group_commit.command_retry import CommandRetry
from wallet_api.group_commit.transactions import OutcomeUnknown, execute
from wallet_api.replies import Reply, problem_reply
from wallet_api.use_cases.use_cases import UseCase

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
        queue_commands: single commands in the queue at most; one more is refused.
        queue_batch_operations: operations of batch requests in the queue at most; a request with more is refused.
        transaction_timeout_seconds: a transaction that takes longer is abandoned.
    """

    batch_commands: int
    queue_commands: int
    queue_batch_operations: int
    transaction_timeout_seconds: float


Place = tuple[Submission[CommandT], int]
"""A command's place in its submission."""


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
        self._queue: CommandQueue[CommandT] = CommandQueue()
        self._unanswered: set[Submission[CommandT]] = set()
        self._draining: asyncio.Task[None] | None = None
        self._skip_locked_until = 0.0
        self._batch_commands = metrics.batch_commands.labels(operation)

    async def submit(self, command: CommandT) -> Reply:
        """Run the command in a batch, and return its reply after the commit.

        Raises:
            Unavailable: the queue is full or the database is away, and nothing was done; or the outcome is unknown.
            Exception: any other means that nothing was done: an asyncpg or a DBAPIError where the database refuses.
        """
        (answer,) = await self.submit_all([command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def submit_all(self, commands: Sequence[CommandT]) -> list[Answer]:
        """Run the commands of one request in a batch, in their order; return what came of each.

        A command that has to wait for a lock is retried later; so are those after it that share a wallet with it.

        Raises:
            Unavailable: the queue is full, and nothing was done.
        """
        weight = sum([command.operation_count for command in commands])
        if not self._has_room(weight):
            raise Unavailable("The server is at capacity. Retry later.")
        keys = [command.claim.key for command in commands if command.claim]
        loop, count = asyncio.get_running_loop(), len(commands)
        submission = Submission(commands, keys, weight, loop.create_future(), loop.time(), range(count), [None] * count)
        self._unanswered.add(submission)
        try:
            self._enqueue(submission)
            return await submission.done
        finally:
            self._unanswered.discard(submission)

    async def close(self) -> None:
        """Abandon the batch in progress and fail all commands without a reply."""
        if self._draining:
            self._draining.cancel()
            await asyncio.wait({self._draining})
        for submission in self._unanswered:
            submission.fail(Unavailable("The server is shutting down. Retry with the same idempotency key."))

    def _has_room(self, weight: int) -> bool:
        if weight == 1:
            return self._queue.single.weight < self._bounds.queue_commands
        return self._queue.batched.weight + weight <= self._bounds.queue_batch_operations

    def _enqueue(self, submission: Submission[CommandT]) -> None:
        self._queue.of(submission.weight).add(submission)
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        while submissions := self._queue.next_batch(self._bounds.batch_commands):
            batch = [(submission, number) for submission in submissions for number in submission.waiting]
            try:
                await self._run(batch)
            except (Exception, asyncio.CancelledError) as error:
                if is_told_to_end():
                    raise
                # A defect. It must not end the task that answers all later commands.
                log.defect("batch_lost", error=error, commands=len(batch))
                for submission in submissions:
                    submission.fail(Unavailable(_UNKNOWN))
            for submission in submissions:
                self._finish_or_retry(submission)
            if len(batch) >= _MANY_COMMANDS:
                await asyncio.sleep(_GATHER_SECONDS)

    async def _run(self, batch: Sequence[Place[CommandT]]) -> None:
        commands = [submission.commands[number] for submission, number in batch]
        self._batch_commands.observe(sum(command.operation_count for command in commands))
        try:
            replies = await self._execute(commands)
        except OutcomeUnknown as unknown:
            log.warning("commit_unconfirmed", error=unknown.__cause__, commands=len(batch))
            for submission, number in batch:
                submission.answers[number] = Unavailable(_UNKNOWN)
        except Exception as error:  # noqa: BLE001 - each submission gets it
            if is_unreachable(error) or is_sequence_behind(error):
                log.warning("batch_failed_server_away", error=error, commands=len(batch))
                for submission, number in batch:
                    submission.answers[number] = unavailable(error)
            elif len(batch) > 1:
                half = len(batch) // 2
                await self._run(batch[:half])
                await self._run([place for place in batch[half:] if not self._has_to_wait(*place)])
            else:
                ((submission, number),) = batch
                is_lock = sqlstate(error) == LOCK_NOT_AVAILABLE
                submission.settle(number, _lock_timeout_reply(error, commands[0].path) if is_lock else error)
        else:
            for (submission, number), reply in zip(batch, replies, strict=True):
                submission.answers[number] = reply

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
        self._on_commit(sum(command.operation_count for command in commands))
        return replies

    def _finish_or_retry(self, submission: Submission[CommandT]) -> None:
        if submission.done.done():
            return
        found = [submission.answers[number] for number in submission.waiting]
        submission.version_attempts += any(_outcome(answer) == VersionConflict.code for answer in found)
        pauses = {
            number: pause_seconds
            for number, answer in zip(submission.waiting, found, strict=True)
            if (pause_seconds := self._pause_seconds(submission, answer)) is not None
        }
        if not pauses:
            submission.finish()
            return
        for number in pauses:
            metrics.transaction_retries.labels(_outcome(submission.answers[number])).inc()
        submission.waiting = list(pauses)
        asyncio.get_running_loop().call_later(max(pauses.values()), self._enqueue, submission)

    def _pause_seconds(self, submission: Submission[CommandT], answer: Answer | None) -> float | None:
        age_seconds = asyncio.get_running_loop().time() - submission.submitted_at
        return self._retry.pause_seconds(_outcome(answer), submission.version_attempts, age_seconds)

    def _has_to_wait(self, submission: Submission[CommandT], number: int) -> bool:
        """Make a command wait if one before it in its request has to wait: they may share a wallet."""
        has_to_wait = any(
            (answer := submission.answers[earlier]) and self._pause_seconds(submission, answer) is not None
            for earlier in submission.waiting
            if earlier < number
        )
        if has_to_wait:
            submission.answers[number] = problem_reply(WalletBusy(), submission.commands[number].path)
        return has_to_wait


def _outcome(answer: Answer | None) -> str:
    return answer.outcome if isinstance(answer, Reply) else ""


def _lock_timeout_reply(error: Exception, path: str) -> Reply:
    # One statement writes wallets and keys; PostgreSQL's CONTEXT alone tells at which of them it waited.
    is_key = "idempotency_keys" in (getattr(error, "context", None) or "")
    return problem_reply(IdempotencyKeyInFlight() if is_key else WalletBusy(), path)
