"""An atomic batch: operations that are done all or none, as one command. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from common.problems import Problem
from wallet_api.operations.operation import ExternalId, LedgerTransaction, Operation, State
from wallet_api.wallet import Wallet

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AtomicBatch(Operation):
    """Operations that are decided in their order, each on what those before it leave. Locks all their wallets.

    Each makes its own ledger transactions, versions and events. If one is refused, none of them is done.

    Args:
        operations: at least one. Their claims are None: the batch has one.
    """

    name = "batch"

    operations: tuple[Operation, ...]

    @property
    def operation_count(self) -> int:
        """How many operations it has."""
        return len(self.operations)

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        """The wallets that its operations need."""
        return _together(operation.wallet_ids for operation in self.operations)

    @property
    def spending_ids(self) -> tuple[UUID, ...]:
        """The wallets whose overdue holds its operations may release."""
        return _together(operation.spending_ids for operation in self.operations)

    @property
    def hold_ids(self) -> tuple[UUID, ...]:
        """The holds that its operations need."""
        return _together(operation.hold_ids for operation in self.operations)

    @property
    def reverses_ids(self) -> tuple[UUID, ...]:
        """The transactions that its operations reverse."""
        return _together(operation.reverses_ids for operation in self.operations)

    @property
    def external_ids(self) -> tuple[ExternalId, ...]:
        """The external ids that its operations take."""
        return _together(operation.external_ids for operation in self.operations)

    def waits_for(self, busy: Collection[UUID], wallets: Mapping[UUID, Wallet]) -> bool:
        """Whether an operation needs one of the busy wallets, and may say so."""
        return any(operation.waits_for(busy, wallets) for operation in self.operations)

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Return what all operations do.

        Raises:
            Problem: of the first operation that is refused; it names the operation.
        """
        own, made = state.copied(), list[LedgerTransaction]()
        for number, operation in enumerate(self.operations):
            try:
                transactions = operation.decide(own)
            except Problem as refusal:
                name_operation(refusal, number)
                raise
            own.apply(transactions)
            made += transactions
        return tuple(made)

    def told(self, transactions: Iterable[LedgerTransaction]) -> list[LedgerTransaction]:
        """Return the transaction of each operation, without those that came before it, such as a release."""
        own = {id(operation) for operation in self.operations}
        return [made for made in transactions if id(made.command) in own]


def name_operation(problem: Problem, number: int) -> None:
    """Make the problem name the operation of the batch, in `item` and before its fields."""
    place = f"operations.{number}"
    # A header has no field of its own in an operation.
    separator = "." if problem.detail[:1].islower() else ": "
    problem.detail = f"{place}{separator}{problem.detail}"
    problem.errors = [{**error, "field": f"{place}.{error['field']}"} for error in problem.errors]
    problem.extensions = {**problem.extensions, "item": number}


def _together(ids: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(id_ for some in ids for id_ in some)
