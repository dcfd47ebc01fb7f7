"""Capture: money that a hold reserves moves to the receiver. Pure."""

from dataclasses import dataclass, replace

from common.money import to_major
from wallet_api.bodies import Amount, OperationBody
from wallet_api.hold import Hold, closed
from wallet_api.operations.errors import CaptureExceedsHold
from wallet_api.operations.holds import HoldOperation, HoldPayment, hold_transaction, with_available
from wallet_api.operations.money_operation import minor_of
from wallet_api.operations.operation import Entry, LedgerTransaction, State
from wallet_api.operations.receiver import find_receiver
from wallet_api.velocity_limits import HOLD
from wallet_api.wallet import Wallet


class CaptureBody(OperationBody):
    """How much of a hold to capture: by default all that it still reserves. A final capture releases the rest."""

    amount: Amount | None = None
    final: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureHold(HoldPayment, HoldOperation):
    """Move what a hold reserves to its receiver. Locks both wallets.

    A capture that is not final leaves the rest reserved, for further captures. One that takes all that the hold still
    reserves is always final. It may take more, up to `capture_max` in all: the excess comes from what is available. If
    the money leaves the system, the caller needs the scope `funds:write` too. A payer that is frozen refuses a capture
    only if it blocks `all`.
    """

    name = "capture"
    transaction_type = "CAPTURE"
    body = CaptureBody

    amount: str | None
    final: bool

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Move the amount from the payer to the receiver, and release what is no longer reserved."""
        payer = self.acting_wallet(state)
        hold = self.open_hold(state)
        payer.check_open("hold_id", "held")
        amount_minor = self._amount_minor(hold)
        is_final = self.final or amount_minor >= hold.remaining_minor
        released_minor = hold.remaining_minor if is_final else amount_minor
        # What exceeds the hold is no further movement.
        payer, expired = with_available(state, payer, amount_minor - released_minor, HOLD, movements=0)
        paid = Entry(payer.moved(-amount_minor, -released_minor, hold=hold), -amount_minor, -released_minor)
        captured = replace(hold, captured_minor=hold.captured_minor + amount_minor)
        hold = closed(captured, "captured") if is_final else captured
        entries = (paid, *self._entries_of_receiver(state, payer, amount_minor, released_minor))
        return (*expired, hold_transaction(self, state, hold, amount_minor, *entries))

    def _amount_minor(self, hold: Hold) -> int:
        amount = self.amount
        amount_minor = hold.remaining_minor if amount is None else minor_of(amount, hold.currency, "amount")
        capturable_minor = hold.capture_max_minor - hold.captured_minor
        if amount_minor > capturable_minor:
            raise CaptureExceedsHold(to_major(capturable_minor, hold.currency), hold.currency)
        return amount_minor

    def _entries_of_receiver(
        self, state: State, payer: Wallet, amount_minor: int, released_minor: int
    ) -> tuple[Entry, ...]:
        if self.to_wallet_id is None:
            return (Entry(None, amount_minor, released_minor),)
        receiver = find_receiver(state.wallets, self.to_wallet_id, self.caller, payer.currency, "hold_id")
        received = receiver.received(amount_minor, payer.currency, self.transaction_type)
        return Entry(received, amount_minor), Entry(None, 0, released_minor)
