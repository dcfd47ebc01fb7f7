"""Void: a hold is given up, and what it reserves is available again. Pure."""

from dataclasses import dataclass

from wallet_api.bodies import OperationBody, Text255
from wallet_api.operations.holds import HoldOperation
from wallet_api.operations.operation import LedgerTransaction, State


class VoidBody(OperationBody):
    """Why the hold is given up."""

    reason: Text255 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoidHold(HoldOperation):
    """Release what a hold still reserves. Locks the wallet, and works whatever the wallet's status.

    What was captured stays captured.
    """

    name = "void"
    transaction_type = "VOID"
    body = VoidBody

    reason: str | None

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Give back what the hold reserves."""
        wallet = self.acting_wallet(state)
        voided = self.release(state, wallet, self.open_hold(state), "voided")
        return (voided._replace(details={**voided.details, "reason": self.reason}),)
