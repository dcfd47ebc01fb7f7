"""The slots of a batch: each has one command, and its reply once a phase of the batch has answered it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from common.problems import Problem
from wallet_api.commands import CommandT
from wallet_api.operations.operation import LedgerTransaction
from wallet_api.replies import Reply, problem_reply


@dataclass(slots=True, eq=False)
class Slot(Generic[CommandT]):
    """One command of a batch.

    Attributes:
        command: of one request.
        transactions: of the ledger; none if the command is refused or replayed.
        reply: None until the command is answered.
    """

    command: CommandT
    transactions: tuple[LedgerTransaction, ...] = ()
    reply: Reply | None = None

    @property
    def outcome(self) -> str | None:
        """The outcome of the reply, once there is one."""
        return None if self.reply is None else self.reply.outcome

    def refuse(self, problem: Problem) -> None:
        """Answer the command with the problem."""
        self.reply = problem_reply(problem, self.command.path)


def replies_of(slots: Sequence[Slot[CommandT]]) -> list[Reply]:
    """Return the reply of each slot; all are answered."""
    replies = [slot.reply for slot in slots if slot.reply]
    assert len(replies) == len(slots)
    return replies
