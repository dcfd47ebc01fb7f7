"""Freeze: a wallet refuses money in, money out, or both. Pure."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from common.access.caller import OPS_WRITE
from common.events.parts import Blocks
from wallet_api.bodies import StatusBody
from wallet_api.errors import WalletFrozen
from wallet_api.operations.operation import Entry, LedgerTransaction, Operation, State


class FreezeBody(StatusBody):
    """What a wallet refuses from now on, and why."""

    blocks: Annotated[Blocks, Field(examples=["out"])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze(Operation):
    """Freeze a wallet: it refuses money in, money out, or both, until it is unfrozen.

    Freezing a frozen wallet changes what it refuses. A caller without the scope `ops:write` can only make it refuse
    more. Locks the wallet.
    """

    name = "freeze"
    transaction_type = "FREEZE"
    scope = OPS_WRITE
    body = FreezeBody

    blocks: Blocks
    reason: str

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Change the status to frozen."""
        wallet = self.acting_wallet(state)
        wallet.check_not_closed("wallet_id")
        # A setting may let owners freeze. Their freeze must not lift one of the operators.
        is_less = wallet.status == "frozen" and self.blocks not in {wallet.blocks, "all"}
        if is_less and OPS_WRITE not in self.caller.scopes:
            blocks = wallet.blocks or "all"
            raise WalletFrozen(
                f"blocks: wallet {wallet.id} is frozen and blocks {blocks}. Send a value that blocks no less.",
                extensions={"blocks": blocks},
            )
        frozen = wallet.with_status("frozen", self.blocks)
        return (self.transaction(0, Entry(frozen, 0), blocks=self.blocks, reason=self.reason),)
