"""Close: an empty wallet takes part in no movement any more. Pure."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from common.access.caller import OPS_WRITE, WALLETS_WRITE
from common.money import to_major
from wallet_api.bodies import StatusBody, WalletId
from wallet_api.errors import WalletFrozen
from wallet_api.operations.errors import WalletNotEmpty
from wallet_api.operations.holds import without_overdue
from wallet_api.operations.operation import Entry, LedgerTransaction, Operation, State
from wallet_api.operations.transfer import Transfer
from wallet_api.wallet import Wallet


class CloseBody(StatusBody):
    """Why a wallet is closed, and where its balance goes before."""

    sweep_to_wallet_id: WalletId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(Transfer):
    """The transfer of a whole balance, by a close."""

    receiver_field = "sweep_to_wallet_id"
    # A close has no amount: the receiver decides how much it can take.
    amount_field = "sweep_to_wallet_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Operation):
    """Close a wallet whose balance is zero. It takes part in no movement until it is reopened.

    With `sweep_to_wallet_id`, the whole balance is sent there first, as a transfer with its own version and event. A
    sweep follows all rules of a transfer, and its caller needs the scope `wallets:write` too. Either both happen or
    neither. A wallet with open holds is not closed. Locks the wallets.
    """

    name = "close"
    transaction_type = "CLOSE"
    scope = OPS_WRITE
    body = CloseBody

    reason: str
    sweep_to_wallet_id: UUID | None

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        """The wallet, and where its balance goes."""
        return (self.wallet_id,) if self.sweep_to_wallet_id is None else (self.wallet_id, self.sweep_to_wallet_id)

    @property
    def further_scope(self) -> str | None:
        """That of transfers, for a sweep."""
        return WALLETS_WRITE if self.sweep_to_wallet_id else None

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Release overdue holds, sweep the balance, if the command says where to, and change the status to closed."""
        wallet = self._closable_wallet(state)
        wallet, expired = without_overdue(state, wallet) if wallet.held_minor else (wallet, [])
        balance = to_major(wallet.balance_minor, wallet.currency)
        is_empty, can_sweep = wallet.balance_minor == 0, wallet.balance_minor > 0 and self.sweep_to_wallet_id
        if wallet.held_minor or not (is_empty or can_sweep):
            raise WalletNotEmpty(wallet.id, balance, to_major(wallet.held_minor, wallet.currency), wallet.currency)
        if is_empty or self.sweep_to_wallet_id is None:
            return (*expired, self._closing(wallet, None))
        released = state._replace(wallets={**state.wallets, wallet.id: wallet})
        (sweep,) = self._sweep(self.sweep_to_wallet_id, balance).decide(released)
        told = {"transaction_id": str(sweep.id), "to_wallet_id": str(self.sweep_to_wallet_id), "amount": balance}
        return *expired, sweep, self._closing(sweep.wallet, told)

    def _closable_wallet(self, state: State) -> Wallet:
        wallet = self.acting_wallet(state)
        wallet.check_not_closed("wallet_id")
        if wallet.status == "frozen" and OPS_WRITE not in self.caller.scopes:
            # A setting may let owners close and reopen. Both together must not lift a freeze of the operators.
            raise WalletFrozen(
                f"wallet_id: wallet {wallet.id} is frozen. Close it when it is unfrozen.",
                extensions={"blocks": wallet.blocks or "all"},
            )
        return wallet

    def _sweep(self, to_wallet_id: UUID, amount: str) -> Sweep:
        return Sweep(
            path=self.path,
            claim=self.claim,
            traceparent=self.traceparent,
            metadata=self.metadata,
            caller=self.caller,
            wallet_id=self.wallet_id,
            reference=self.reference,
            if_match=None,
            batch_id=self.batch_id,
            amount=amount,
            currency=None,
            to_wallet_id=to_wallet_id,
        )

    def _closing(self, wallet: Wallet, sweep: dict[str, Any] | None) -> LedgerTransaction:
        return self.transaction(0, Entry(wallet.with_status("closed"), 0), reason=self.reason, sweep=sweep)
