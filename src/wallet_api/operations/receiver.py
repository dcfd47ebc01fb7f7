"""The receiver of money. A caller that may not read it does not learn its state (decision 0024). Pure."""

from uuid import UUID

from common.access.caller import Caller
from wallet_api.errors import CurrencyMismatch, ReceiverUnavailable, WalletNotFound
from wallet_api.operations.operation import State
from wallet_api.wallet import Wallet


def find_receiver(caller: Caller, state: State, to_wallet_id: UUID, currency: str) -> Wallet:
    """Return the receiver. A caller that may read it is told why it can't receive that currency.

    Raises:
        WalletNotFound, WalletFrozen, WalletClosed, CurrencyMismatch: it can't.
    """
    receiver = state.wallets.get(to_wallet_id)
    if receiver is None:
        raise WalletNotFound(to_wallet_id, "to_wallet_id")
    if caller.owns(receiver.user_id):
        receiver.check_open("to_wallet_id")
        if receiver.currency != currency:
            raise CurrencyMismatch(
                f"to_wallet_id: wallet {receiver.id} is in {receiver.currency}, not {currency}."
                " Send to a wallet of the sender's currency."
            )
    return receiver


def received(caller: Caller, receiver: Wallet, amount_minor: int, currency: str) -> Wallet:
    """Return the receiver after it has got the amount.

    This comes last: a caller that could not send the money learns nothing of another user's wallet.

    Raises:
        ReceiverUnavailable, BalanceLimitExceeded: it can't take the amount.
    """
    if not caller.owns(receiver.user_id) and not receiver.can_receive(amount_minor, currency):
        raise ReceiverUnavailable(receiver.id)
    return receiver.moved(amount_minor)
