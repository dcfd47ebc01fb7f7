"""The other side of a payment: a wallet that receives, and that the caller may not read, perhaps. Pure."""

from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from common.access.caller import Caller
from wallet_api.errors import WalletNotFound
from wallet_api.operations.errors import CurrencyMismatch, ReceiverUnavailable
from wallet_api.wallet import Wallet


class Receiver(NamedTuple):
    """A wallet that is to receive money.

    Attributes:
        wallet: before it receives.
        field: of the request names it: `to_wallet_id`, or `hold_id` where the hold does.
        amount_field: of the request has the amount.
        is_readable: whether the caller may read the wallet.
    """

    wallet: Wallet
    field: str
    amount_field: str
    is_readable: bool

    def received(self, amount_minor: int, currency: str, counts_as: str | None) -> Wallet:
        """Return the wallet after it has received the amount, by an entry that counts as this type for its limits.

        An operation asks for it last: a caller that could not send the money learns nothing of another user's wallet
        (decision 0024).

        Raises:
            ReceiverUnavailable, BalanceLimitExceeded, LimitExceeded: it can't receive the amount.
        """
        if not self.is_readable and not self.wallet.can_receive(amount_minor, currency, counts_as):
            raise ReceiverUnavailable(self.wallet.id, self.field)
        return self.wallet.moved(amount_minor, field=self.amount_field, counts_as=counts_as)


def find_receiver(
    wallets: Mapping[UUID, Wallet],
    to_wallet_id: UUID,
    caller: Caller,
    currency: str,
    field: str = "to_wallet_id",
    amount_field: str = "amount",
) -> Receiver:
    """Return the receiver.

    Raises:
        WalletNotFound: it doesn't exist.
        WalletFrozen, WalletClosed, CurrencyMismatch: the caller may read it, and it can't receive that currency.
    """
    wallet = wallets.get(to_wallet_id)
    if wallet is None:
        raise WalletNotFound(to_wallet_id, field)
    receiver = Receiver(wallet, field, amount_field, caller.owns(wallet.user_id))
    if receiver.is_readable:
        wallet.check_open(field, "in")
        if wallet.currency != currency:
            raise CurrencyMismatch(
                f"{field}: wallet {wallet.id} is in {wallet.currency}, not {currency}."
                " Send to a wallet of the sender's currency."
            )
    return receiver
