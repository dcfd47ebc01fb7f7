"""Reopen: a closed wallet is active again. Pure."""

from dataclasses import dataclass

from common.access.caller import OPS_WRITE
from wallet_api.bodies import StatusBody
from wallet_api.operations.errors import WalletNotClosed
from wallet_api.operations.operation import Entry, LedgerTransaction, Operation, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopen(Operation):
    """Make a closed wallet active again, even if it was frozen when it was closed. Locks the wallet."""

    name = "reopen"
    transaction_type = "REOPEN"
    scope = OPS_WRITE
    body = StatusBody

    reason: str

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Change the status from closed to active."""
        wallet = self.acting_wallet(state)
        if wallet.status != "closed":
            raise WalletNotClosed(wallet.id, wallet.status)
        return (self.transaction(0, Entry(wallet.with_status("active"), 0), reason=self.reason),)
