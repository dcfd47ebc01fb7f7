"""Withdraw: money leaves a wallet and the system. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from common.access.caller import FUNDS_WRITE
from wallet_api.bodies import MoneyBody
from wallet_api.operations.operation import Entry, LedgerTransaction, MoneyOperation
from wallet_api.wallet import Wallet


class WithdrawBody(MoneyBody):
    """Money to pay out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw(MoneyOperation):
    """Pay money out: it leaves the wallet and the system. Locks the wallet."""

    name = "withdraw"
    transaction_type = "WITHDRAW"
    scope = FUNDS_WRITE
    body = WithdrawBody

    def decide(self, wallets: Mapping[UUID, Wallet]) -> tuple[LedgerTransaction, ...]:
        """Move the amount from the wallet to the currency's world account."""
        wallet = self.open_wallet(wallets, "out")
        amount_minor = self.amount_minor(wallet)
        withdrawn = wallet.moved(-amount_minor)
        return (self.transaction(amount_minor, Entry(withdrawn, -amount_minor), Entry(None, amount_minor)),)
