"""A wallet as the money rules need it. Pure."""

from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from common.events import Blocks
from common.money import MINOR_MAX, to_major
from wallet_api.errors import BalanceLimitExceeded, InsufficientFunds, WalletClosed, WalletFrozen


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet at one of its versions; the balance is in minor units of its currency.

    `blocks` is what a frozen wallet refuses; None means all.
    """

    id: UUID
    user_id: str
    currency: str
    balance_minor: int
    version: int
    status: str
    blocks: Blocks | None = None

    def can_receive(self, amount_minor: int, currency: str) -> bool:
        """Whether the amount may move into the wallet."""
        is_open = self.status != "closed" and not self._refuses("in")
        return is_open and self.currency == currency and self.balance_minor + amount_minor <= MINOR_MAX

    def check_open(self, field: str, direction: Literal["in", "out"]) -> None:
        """Refuse a command that names the wallet in this field, unless money may move in this direction.

        Raises:
            WalletFrozen, WalletClosed: it may not.
        """
        self.check_not_closed(field)
        if self._refuses(direction):
            where = "into" if direction == "in" else "out of"
            raise WalletFrozen(
                f"{field}: wallet {self.id} is frozen: no money moves {where} it."
                " Use another wallet until it is unfrozen.",
                extensions={"blocks": self.blocks or "all"},
            )

    def check_not_closed(self, field: str) -> None:
        """Refuse a command that names the wallet in this field, if the wallet is closed.

        Raises:
            WalletClosed: it is.
        """
        if self.status == "closed":
            raise WalletClosed(f"{field}: wallet {self.id} is closed. Use another wallet.")

    def _refuses(self, direction: Literal["in", "out"]) -> bool:
        return self.status == "frozen" and self.blocks in {None, "all", direction}

    def with_status(self, status: Literal["active", "frozen", "closed"], blocks: Blocks | None = None) -> "Wallet":
        """Return the wallet with another status, one version on."""
        return replace(self, version=self.version + 1, status=status, blocks=blocks)

    def moved(self, amount_minor: int, field: str = "amount") -> "Wallet":
        """Return the wallet after the amount has moved into it (or, below zero, out of it), one version on.

        `field` of the request has the amount.

        Raises:
            InsufficientFunds: its balance is less than the amount.
            BalanceLimitExceeded: its balance would be more than a wallet can hold.
        """
        balance_minor = self.balance_minor + amount_minor
        if balance_minor < 0:
            raise InsufficientFunds(
                f"{field}: wallet {self.id} has {to_major(self.balance_minor, self.currency)} {self.currency},"
                f" less than {to_major(-amount_minor, self.currency)}. Fund the wallet, or send a smaller amount."
            )
        if balance_minor > MINOR_MAX:
            most = to_major(MINOR_MAX, self.currency)
            raise BalanceLimitExceeded(
                f"{field}: wallet {self.id} can hold at most {most} {self.currency}. Send a smaller amount."
            )
        return Wallet(self.id, self.user_id, self.currency, balance_minor, self.version + 1, self.status, self.blocks)
