"""Withdraw: money leaves a wallet and the system. Pure."""

from dataclasses import dataclass

from common.access.caller import FUNDS_WRITE
from wallet_api.bodies import MoneyBody
from wallet_api.operations.holds import with_available
from wallet_api.operations.money_operation import MoneyOperation
from wallet_api.operations.operation import Entry, LedgerTransaction, State


class WithdrawBody(MoneyBody):
    """Money to pay out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw(MoneyOperation):
    """Pay money out: it leaves the wallet and the system. Locks the wallet."""

    name = "withdraw"
    transaction_type = "WITHDRAW"
    scope = FUNDS_WRITE
    body = WithdrawBody

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Move the amount from the wallet to the currency's world account."""
        wallet = self.open_wallet(state, "out")
        amount_minor = self.amount_minor(wallet)
        wallet, expired = with_available(state, wallet, amount_minor, self.transaction_type)
        withdrawn = wallet.moved(-amount_minor, counts_as=self.transaction_type)
        return (*expired, self.transaction(amount_minor, Entry(withdrawn, -amount_minor), Entry(None, amount_minor)))
