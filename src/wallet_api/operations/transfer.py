"""Transfer: money moves to another wallet of the same currency. Pure."""

from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from common.access.caller import WALLETS_WRITE
from wallet_api.bodies import MoneyBody, WalletId
from wallet_api.operations.errors import SameWallet
from wallet_api.operations.holds import with_available
from wallet_api.operations.money_operation import MoneyOperation
from wallet_api.operations.operation import Entry, LedgerTransaction, State
from wallet_api.operations.receiver import find_receiver


class TransferBody(MoneyBody):
    """Money to send."""

    to_wallet_id: WalletId


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(MoneyOperation):
    """Send money to another wallet of the same currency. Locks both wallets.

    The reply tells nothing of a wallet that the caller may not read, but that it cannot receive.
    """

    name = "transfer"
    transaction_type = "TRANSFER"
    scope = WALLETS_WRITE
    body = TransferBody
    receiver_field: ClassVar[str] = "to_wallet_id"
    amount_field: ClassVar[str] = "amount"

    to_wallet_id: UUID

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        """The sender and the receiver."""
        return self.wallet_id, self.to_wallet_id

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Move the amount from the sender to the receiver."""
        if self.to_wallet_id == self.wallet_id:
            raise SameWallet(f"{self.receiver_field}: must be another wallet than the sender.")
        sender = self.open_wallet(state, "out")
        receiver = find_receiver(
            state.wallets, self.to_wallet_id, self.caller, sender.currency, self.receiver_field, self.amount_field
        )
        amount_minor = self.amount_minor(sender)
        sender, expired = with_available(state, sender, amount_minor, self.transaction_type)
        sent = sender.moved(-amount_minor, counts_as=self.transaction_type)
        received = receiver.received(amount_minor, sender.currency, self.transaction_type)
        return (*expired, self.transaction(amount_minor, Entry(sent, -amount_minor), Entry(received, amount_minor)))
