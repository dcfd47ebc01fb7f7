"""What all operations on holds share, and the release of overdue ones. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from common.access.caller import ANONYMOUS, FUNDS_WRITE, WALLETS_WRITE
from wallet_api.bodies import OperationBody
from wallet_api.hold import Hold, closed, hold_json
from wallet_api.operations.errors import HoldExpired, HoldNotOpen
from wallet_api.operations.operation import Entry, LedgerTransaction, Operation, State
from wallet_api.wallet import Wallet


def hold_transaction(
    command: Operation, state: State, hold: Hold, amount_minor: int, *entries: Entry
) -> LedgerTransaction:
    """Return the transaction that leaves the hold like this."""
    transaction = command.transaction(amount_minor, *entries, hold=hold_json(hold, state.now))
    return transaction._replace(hold=hold)


class HoldPayment:
    """What the commands share that reserve or capture a payment: to a wallet, or out of the system."""

    __slots__ = ()

    wallet_id: UUID
    to_wallet_id: UUID | None

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        """The payer and, if it is a wallet, the receiver."""
        return (self.wallet_id, self.to_wallet_id) if self.to_wallet_id else (self.wallet_id,)

    @property
    def further_scope(self) -> str | None:
        """That of payouts, if the money leaves the system."""
        return None if self.to_wallet_id else FUNDS_WRITE


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOperation(Operation):
    """An operation on a hold that exists. The acting wallet is the hold's, under whose lock alone the hold changes.

    Args:
        hold_id: the hold. Its wallets never change, so the request reads them before.
        to_wallet_id: the hold's receiver; None is the world.
    """

    collection = "holds"
    scope = WALLETS_WRITE
    body = OperationBody

    hold_id: UUID
    to_wallet_id: UUID | None

    @property
    def hold_ids(self) -> tuple[UUID, ...]:
        """The hold."""
        return (self.hold_id,)

    def open_hold(self, state: State) -> Hold:
        """Return the hold, if it is open.

        Raises:
            HoldExpired, HoldNotOpen: it isn't.
        """
        hold = state.holds[self.hold_id]
        if hold.status_at(state.now) == "expired":
            raise HoldExpired(hold.id, hold.expires_at)
        if hold.status != "open":
            raise HoldNotOpen(hold.id, hold.status)
        return hold

    def release(self, state: State, wallet: Wallet, hold: Hold, status: str) -> LedgerTransaction:
        """Return the transaction that gives back what the hold still reserves, and closes it with this status."""
        released_minor = hold.remaining_minor
        released = wallet.moved(0, -released_minor, hold=hold)
        entries = Entry(released, 0, -released_minor), Entry(None, 0, released_minor)
        return hold_transaction(self, state, closed(hold, status), released_minor, *entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireHold(HoldOperation):
    """Release a hold that has expired. It has no route: the releaser runs it, and commands that are short of funds."""

    name = "expire"
    transaction_type = "EXPIRE"

    @classmethod
    def of(cls, hold_id: UUID, wallet_id: UUID) -> "ExpireHold":
        """Return the command, which no client sent."""
        return cls(
            path=f"/holds/{hold_id}",
            metadata={},
            caller=ANONYMOUS,
            wallet_id=wallet_id,
            reference=None,
            hold_id=hold_id,
            to_wallet_id=None,
        )

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Give back what the hold reserves, whatever the wallet's status."""
        hold = state.holds[self.hold_id]
        if not hold.is_overdue(state.now):
            raise HoldNotOpen(hold.id, hold.status)
        return (self.release(state, self.acting_wallet(state), hold, "expired"),)


def with_available(
    state: State, wallet: Wallet, amount_minor: int, counts_as: str | None = None, movements: int = 1
) -> tuple[Wallet, list[LedgerTransaction]]:
    """Release overdue holds of a wallet that cannot spend the amount, the oldest first, until it can.

    Args:
        state: has the holds.
        wallet: is to spend.
        amount_minor: takes from what is available.
        counts_as: the type of the ledger entry that counts for velocity limits; None: it does not count.
        movements: how many it counts as.

    Returns:
        The wallet, which may still be short of the amount, and the transactions of the releases.
    """
    # What takes nothing is never refused. Most wallets hold nothing.
    if not wallet.held_minor or amount_minor <= 0:
        return wallet, []
    return _release_overdue(state, wallet, lambda wallet: wallet.can_spend(amount_minor, counts_as, movements))


def without_overdue(state: State, wallet: Wallet) -> tuple[Wallet, list[LedgerTransaction]]:
    """Release all overdue holds of the wallet; return it and the transactions of the releases."""
    return _release_overdue(state, wallet, lambda _: False)


def _release_overdue(
    state: State, wallet: Wallet, is_enough: Callable[[Wallet], bool]
) -> tuple[Wallet, list[LedgerTransaction]]:
    released: list[LedgerTransaction] = []
    if is_enough(wallet):
        return wallet, released
    overdue = [hold for hold in state.holds.values() if hold.wallet_id == wallet.id and hold.is_overdue(state.now)]
    for hold in sorted(overdue, key=lambda hold: (hold.expires_at, hold.id)):
        released.append(ExpireHold.of(hold.id, wallet.id).release(state, wallet, hold, "expired"))
        wallet = released[-1].wallet
        if is_enough(wallet):
            break
    return wallet, released
