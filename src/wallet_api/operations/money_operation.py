"""Operations that move money: of one currency, or one amount of it. Pure."""

from dataclasses import dataclass
from typing import Literal

from common.money import AmountError, to_minor
from common.problems import ValidationProblem
from wallet_api.operations.errors import CurrencyMismatch
from wallet_api.operations.operation import Operation, State
from wallet_api.wallet import Wallet


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrencyOperation(Operation):
    """An operation that moves money of one currency into or out of the acting wallet.

    Args:
        currency: must be the wallet's, if the client sends one.
    """

    currency: str | None

    def open_wallet(self, state: State, direction: Literal["in", "out"]) -> Wallet:
        """Return the acting wallet, if money of the command's currency may move in this direction.

        Raises:
            WalletNotFound, VersionMismatch, WalletFrozen, WalletClosed, CurrencyMismatch: it may not.
        """
        wallet = self.acting_wallet(state)
        wallet.check_open("wallet_id", direction)
        if self.currency not in {None, wallet.currency}:
            raise CurrencyMismatch(
                f"currency: wallet {wallet.id} is in {wallet.currency}, not {self.currency}. Send {wallet.currency}."
            )
        return wallet


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyOperation(CurrencyOperation):
    """An operation that moves one amount into or out of the acting wallet.

    Args:
        amount: in major units, `"50.00"`.
    """

    amount: str

    def amount_minor(self, wallet: Wallet) -> int:
        """Return the amount in minor units of the wallet's currency.

        Raises:
            ValidationProblem: it isn't an amount of that currency.
        """
        return minor_of(self.amount, wallet.currency, "amount")


def minor_of(amount: str, currency: str, field: str) -> int:
    """Return the amount that the request has in this field, in minor units.

    Raises:
        ValidationProblem: it isn't an amount of that currency.
    """
    try:
        return to_minor(amount, currency)
    except AmountError as error:
        raise ValidationProblem.of(field, str(error)) from error
