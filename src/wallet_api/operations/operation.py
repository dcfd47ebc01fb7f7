"""What an operation is: a command on a wallet that exists, and what a decided one writes. Pure."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal, NamedTuple
from uuid import UUID

from common.access.caller import WALLETS_WRITE, Caller
from common.identifiers import new_id
from wallet_api.bodies import OperationBody
from wallet_api.commands import Command
from wallet_api.errors import ExternalIdTaken, WalletNotFound
from wallet_api.hold import Hold
from wallet_api.operations.errors import VersionMismatch
from wallet_api.wallet import Wallet

Reversals = dict[UUID, Counter[UUID | None]]
"""What was given back of transactions, in minor units: by the transaction, and by the wallet that gave it back.

The world account is None.
"""


class ExternalId(NamedTuple):
    """A client's own id of a transaction. It belongs to the acting wallet: two wallets may have the same text."""

    wallet_id: UUID
    text: str


class State(NamedTuple):
    """What a command is decided on: wallets and holds as the commands before it in the batch leave them.

    Attributes:
        wallets: by their ids.
        holds: by their ids: those that commands name, and the overdue ones of the wallets.
        now: the database's time, after each wallet became what it is.
        reversals: what was given back of the transactions that commands reverse.
        external_ids: those of commands that a transaction of their acting wallet has already, each with that
            transaction; None is one of a preview, which is never made.
    """

    wallets: dict[UUID, Wallet]
    holds: dict[UUID, Hold]
    now: datetime
    reversals: Reversals
    external_ids: dict[ExternalId, UUID | None]

    @classmethod
    def at(cls, now: datetime, wallets: Mapping[UUID, Wallet]) -> "State":
        """Return the state of these wallets, with nothing that commands seldom need."""
        return cls(dict(wallets), {}, now, {}, {})

    def copied(self) -> "State":
        """Return a copy that takes what further commands do, and leaves this state as it is."""
        reversals = {id_: Counter(given_back) for id_, given_back in self.reversals.items()}
        return State(dict(self.wallets), dict(self.holds), self.now, reversals, dict(self.external_ids))

    def apply(self, transactions: Iterable["LedgerTransaction"]) -> None:
        """Take what a command did, for the commands after it."""
        for made in transactions:
            self.wallets.update((wallet.id, wallet) for wallet in made.wallets)
            if made.hold:
                self.holds[made.hold.id] = made.hold
            if made.reverses_id:
                self.reversals.setdefault(made.reverses_id, Counter()).update(made.given_back())
            if external_id := made.command.external_id:
                self.external_ids[ExternalId(made.wallet.id, external_id)] = made.id


class Entry(NamedTuple):
    """One entry of a ledger transaction.

    Attributes:
        wallet: as it is after the entry; None is the currency's world account.
        amount_minor: moves into the wallet, or, below zero, out of it.
        held_minor: changes what the wallet's open holds reserve.
    """

    wallet: Wallet | None
    amount_minor: int
    held_minor: int = 0


class LedgerTransaction(NamedTuple):
    """What an operation writes: the entries, the wallets, and one event.

    The amounts of the entries sum to zero, and so does what they hold.

    Attributes:
        id: of the transaction.
        type: of its entries; `common.events.models.TRANSACTION_EVENTS` has the event.
        command: which made it.
        amount_minor: how much money it moves; 0 if none.
        wallet: the acting wallet, as it is after the transaction.
        entries: the acting wallet's entry is the first; each wallet has one.
        details: what the event says besides that, as JSON values.
        hold: as it is after the transaction, if it changes one.
        reverses_id: the transaction that it reverses, if it is a reversal.
    """

    id: UUID
    type: str
    command: "Operation"
    amount_minor: int
    wallet: Wallet
    entries: tuple[Entry, ...]
    details: Mapping[str, Any]
    hold: Hold | None = None
    reverses_id: UUID | None = None

    @property
    def wallets(self) -> list[Wallet]:
        """The wallets that it changes, as they are after it: the acting wallet first."""
        return [entry.wallet for entry in self.entries if entry.wallet]

    def given_back(self) -> dict[UUID | None, int]:
        """Return what its entries moved out of each wallet, and of the world account (None)."""
        given = [entry for entry in self.entries if entry.amount_minor < 0]
        return {entry.wallet.id if entry.wallet else None: -entry.amount_minor for entry in given}

    def counterparty_id(self, entry: Entry) -> UUID | None:
        """Return the wallet on the other side of an entry: None is the world, or several wallets."""
        if entry is not self.entries[0]:
            return self.wallet.id
        others = self.entries[1:]
        if len(others) > 1:
            others = tuple(entry for entry in others if entry.amount_minor)
        other = others[0].wallet if len(others) == 1 else None
        return other.id if other else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Command, ABC):
    """A command on a wallet that exists. Each operation is a subclass, in a module of its own.

    The class says what the operation is:

    - `name`: in the route's path and in metrics.
    - `method`: of its route. That of a PUT needs `If-Match`.
    - `collection`: in the route's path: the objects of which it acts on one.
    - `transaction_type`: of its ledger transactions.
    - `scope`: that callers need.
    - `body`: of its requests. The body's fields are fields of the command.
    - `status`: of the reply, if it is done.
    - `is_optimistic`: read its wallets without a lock, and write only if they are still at that version.

    Args:
        caller: acts on the wallets of its user only, if it is bound to one.
        wallet_id: the acting wallet.
        reference: the client's own text.
        if_match: the wallet must be at one of these versions; None means any.
        external_id: the client's own id of the last transaction that the command makes, if it has one.
        batch_id: of the batch request that it is a part of, if any.
    """

    name: ClassVar[str]
    method: ClassVar[Literal["POST", "PUT"]] = "POST"
    collection: ClassVar[str] = "wallets"
    transaction_type: ClassVar[str]
    scope: ClassVar[str]
    body: ClassVar[type[OperationBody]]
    status: ClassVar[int] = 200
    is_optimistic: ClassVar[bool] = False

    caller: Caller
    wallet_id: UUID
    reference: str | None
    if_match: frozenset[int] | None = None
    external_id: str | None = None
    batch_id: UUID | None = None

    @classmethod
    def target_of(cls, id_: object) -> str:
        """Return the path of its route for the object with this id."""
        return f"/{cls.collection}/{id_}/{cls.name}"

    @classmethod
    def scope_for(cls, owner_operations: Collection[str]) -> str:
        """Return the scope that callers need, where owners may do these operators' operations."""
        return WALLETS_WRITE if cls.name in owner_operations else cls.scope

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        """The wallets that it needs."""
        return (self.wallet_id,)

    @property
    def hold_ids(self) -> tuple[UUID, ...]:
        """The holds that it needs."""
        return ()

    @property
    def spending_ids(self) -> tuple[UUID, ...]:
        """The wallets whose overdue holds it releases if they are short of funds."""
        return (self.wallet_id,)

    @property
    def reverses_ids(self) -> tuple[UUID, ...]:
        """The transactions that it reverses."""
        return ()

    @property
    def external_ids(self) -> tuple[ExternalId, ...]:
        """The external ids that it takes."""
        return () if self.external_id is None else (ExternalId(self.wallet_id, self.external_id),)

    @property
    def further_scope(self) -> str | None:
        """The scope that this command needs besides the route's, if any."""
        return None

    @abstractmethod
    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Return what the command does to its wallets: nearly always one transaction. The reply tells of the last.

        Raises:
            Problem: the command is refused.
        """

    def find_acting(self, wallets: Mapping[UUID, Wallet]) -> Wallet | None:
        """Return the acting wallet; None, too, where it isn't the caller's: it gets the same reply."""
        wallet = wallets.get(self.wallet_id)
        return wallet if wallet and self.caller.owns(wallet.user_id) else None

    def waits_for(self, busy: Collection[UUID], wallets: Mapping[UUID, Wallet]) -> bool:
        """Whether it needs one of the busy wallets, and may say so.

        A caller that may not move the acting wallet learns nothing of the others.
        """
        return any(id_ in busy for id_ in self.wallet_ids) and self.find_acting(wallets) is not None

    def acting_wallet(self, state: State) -> Wallet:
        """Return the acting wallet, at a version that the command takes and without its external id.

        Raises:
            WalletNotFound, ExternalIdTaken, VersionMismatch: there is none.
        """
        wallet = self.find_acting(state.wallets)
        if wallet is None:
            raise WalletNotFound(self.wallet_id)
        # Before all that the first command with this id may have changed.
        if self.external_id and (taken := ExternalId(wallet.id, self.external_id)) in state.external_ids:
            raise ExternalIdTaken.by_transaction(*taken, state.external_ids[taken])
        if self.if_match is not None and wallet.version not in self.if_match:
            raise VersionMismatch(
                f"If-Match: wallet {wallet.id} is at version {wallet.version}. Read the wallet, and send its new ETag.",
                extensions={"version": wallet.version},
            )
        return wallet

    def transaction(self, amount_minor: int, *entries: Entry, **details: Any) -> LedgerTransaction:
        """Return the transaction that the entries make; the acting wallet's is the first."""
        wallet = entries[0].wallet
        assert wallet is not None
        return LedgerTransaction(new_id(), self.transaction_type, self, amount_minor, wallet, entries, details)
