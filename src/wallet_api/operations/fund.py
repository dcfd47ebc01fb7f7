"""Fund: money comes into a wallet from outside. Pure."""

from dataclasses import dataclass

from common.access.caller import FUNDS_WRITE
from wallet_api.bodies import MoneyBody
from wallet_api.operations.money_operation import MoneyOperation
from wallet_api.operations.operation import Entry, LedgerTransaction, State


class FundBody(MoneyBody):
    """Money to bring in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fund(MoneyOperation):
    """Bring money in from outside. Locks optimistically."""

    name = "fund"
    transaction_type = "FUND"
    scope = FUNDS_WRITE
    body = FundBody
    is_optimistic = True

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Move the amount from the world account into the wallet."""
        wallet = self.open_wallet(state, "in")
        amount_minor = self.amount_minor(wallet)
        funded = wallet.moved(amount_minor, counts_as=self.transaction_type)
        return (self.transaction(amount_minor, Entry(funded, amount_minor), Entry(None, -amount_minor)),)
