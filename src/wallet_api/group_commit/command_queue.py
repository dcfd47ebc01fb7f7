"""The queue of a group commit: one line for single commands, one for batch requests.

A batch request has up to 100 operations. In one queue, single commands would wait behind many of them.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Generic

from wallet_api.commands import CommandT, IdempotencyKey
from wallet_api.replies import Reply

BATCH_OPERATIONS_MAX: Final = 100
"""The most operations of a batch request."""

Answer = Reply | Exception
"""What came of a command. An exception means what `GroupCommit.submit` says."""


@dataclass(slots=True, eq=False)
class Submission(Generic[CommandT]):
    """Commands between their submission and their answers: one, or those of a batch request in their order.

    Attributes:
        commands: they always share a transaction, unless a batch is run again in halves.
        keys: the idempotency keys of its commands.
        weight: how many operations it has.
        done: gets the answers.
        submitted_at: by the event loop's time, in seconds.
        waiting: the numbers of the commands without a final answer.
        answers: of each command; None before its first run.
        version_attempts: how often a wallet changed before the write.
    """

    commands: Sequence[CommandT]
    keys: Sequence[IdempotencyKey]
    weight: int
    done: asyncio.Future[list[Answer]]
    submitted_at: float
    waiting: Sequence[int]
    answers: list[Answer | None]
    version_attempts: int = 0

    def settle(self, number: int, answer: Answer) -> None:
        """Give a command its final answer, whatever its outcome."""
        self.answers[number] = answer
        self.waiting = [other for other in self.waiting if other != number]

    def finish(self) -> None:
        """Return the answers to the request."""
        if not self.done.done():
            self.done.set_result([answer for answer in self.answers if answer])

    def fail(self, error: Exception) -> None:
        """Answer the commands that have no final answer with the error."""
        for number in self.waiting:
            self.answers[number] = error
        self.finish()


@dataclass(slots=True)
class Batch(Generic[CommandT]):
    """What shares the next transaction; of one idempotency key only the first command."""

    submissions: list[Submission[CommandT]] = field(default_factory=list)
    keys: set[IdempotencyKey] = field(default_factory=set)
    weight: int = 0


class Line(Generic[CommandT]):
    """Submissions that wait for a transaction, first in, first out."""

    def __init__(self) -> None:
        self._waiting: deque[Submission[CommandT]] = deque()
        self.weight = 0

    def add(self, submission: Submission[CommandT]) -> None:
        """Put it at the end."""
        self._waiting.append(submission)
        self.weight += submission.weight

    def move_to(self, batch: Batch[CommandT], weight_max: int) -> None:
        """Move submissions to the batch while it has room, at least one if it is empty.

        A submission with a key that the batch has already waits for the next batch.
        """
        later: list[Submission[CommandT]] = []
        while self._waiting and (not batch.weight or batch.weight + self._waiting[0].weight <= weight_max):
            submission = self._waiting.popleft()
            if submission.done.done():
                self.weight -= submission.weight
            elif not batch.keys.isdisjoint(submission.keys):
                later.append(submission)
            else:
                self.weight -= submission.weight
                batch.weight += submission.weight
                batch.keys.update(submission.keys)
                batch.submissions.append(submission)
        self._waiting.extendleft(reversed(later))


class CommandQueue(Generic[CommandT]):
    """The two lines."""

    def __init__(self) -> None:
        self.single: Line[CommandT] = Line()
        self.batched: Line[CommandT] = Line()

    def of(self, weight: int) -> Line[CommandT]:
        """Return the line of a submission with so many operations."""
        return self.single if weight == 1 else self.batched

    def next_batch(self, commands_max: int) -> list[Submission[CommandT]]:
        """Take the next batch.

        If both lines have something, single commands get half of the batch, and one batch request always fits beside
        them. So neither line waits for the other to become empty.
        """
        batch: Batch[CommandT] = Batch()
        self.single.move_to(batch, commands_max - min(self.batched.weight, commands_max // 2))
        self.batched.move_to(batch, max(commands_max, batch.weight + BATCH_OPERATIONS_MAX))
        self.single.move_to(batch, commands_max)
        return batch.submissions
