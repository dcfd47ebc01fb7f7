"""Unfreeze: a frozen wallet is active again. Pure."""

from dataclasses import dataclass

from common.access.caller import OPS_WRITE
from wallet_api.bodies import StatusBody
from wallet_api.operations.errors import WalletNotFrozen
from wallet_api.operations.operation import Entry, LedgerTransaction, Operation, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfreeze(Operation):
    """Make a frozen wallet active again. Locks the wallet."""

    name = "unfreeze"
    transaction_type = "UNFREEZE"
    scope = OPS_WRITE
    body = StatusBody

    reason: str

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Change the status from frozen to active."""
        wallet = self.acting_wallet(state)
        if wallet.status != "frozen":
            raise WalletNotFrozen(wallet.id, wallet.status)
        return (self.transaction(0, Entry(wallet.with_status("active"), 0), reason=self.reason),)
