"""A wallet as the money rules need it. Pure."""

from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from common.events import Blocks
from common.money import MINOR_MAX, to_major
from wallet_api.errors import BalanceLimitExceeded, InsufficientFunds, WalletClosed, WalletFrozen

Direction = Literal["in", "out", "held"]
"""Where money moves: `held` is out of what a hold reserved before, which a freeze of `out` lets pass."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet at one of its versions; money is in minor units of its currency.

    Attributes:
        balance_minor: what is booked.
        blocks: what a frozen wallet refuses; None means all.
        held_minor: what open holds reserve of the balance.
    """

    id: UUID
    user_id: str
    currency: str
    balance_minor: int
    version: int
    status: str
    blocks: Blocks | None = None
    held_minor: int = 0

    @property
    def available_minor(self) -> int:
        """What may be spent or reserved."""
        return self.balance_minor - self.held_minor

    def can_receive(self, amount_minor: int, currency: str) -> bool:
        """Whether the amount may move into the wallet."""
        is_open = self.status != "closed" and not self._refuses("in")
        return is_open and self.currency == currency and self.balance_minor + amount_minor <= MINOR_MAX

    def check_open(self, field: str, direction: Direction) -> None:
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

    def _refuses(self, direction: Direction) -> bool:
        return self.status == "frozen" and self.blocks in {None, "all", direction}

    def with_status(self, status: Literal["active", "frozen", "closed"], blocks: Blocks | None = None) -> "Wallet":
        """Return the wallet with another status, one version on."""
        return replace(self, version=self.version + 1, status=status, blocks=blocks)

    def moved(self, amount_minor: int, held_minor: int = 0, field: str = "amount") -> "Wallet":
        """Return the wallet one version on, after its balance and what it holds have changed by these amounts.

        `field` of the request has the amount.

        Raises:
            InsufficientFunds: less than that is available.
            BalanceLimitExceeded: its balance would be more than a wallet can hold.
        """
        balance_minor = self.balance_minor + amount_minor
        held_minor += self.held_minor
        if balance_minor < held_minor:
            needed_minor = self.available_minor - balance_minor + held_minor
            raise InsufficientFunds(
                f"{field}: wallet {self.id} has {to_major(self.available_minor, self.currency)} {self.currency}"
                f" available, less than {to_major(needed_minor, self.currency)}."
                " Fund the wallet, or send a smaller amount."
            )
        if balance_minor > MINOR_MAX:
            most = to_major(MINOR_MAX, self.currency)
            raise BalanceLimitExceeded(
                f"{field}: wallet {self.id} can hold at most {most} {self.currency}. Send a smaller amount."
            )
        version = self.version + 1
        return Wallet(
            self.id, self.user_id, self.currency, balance_minor, version, self.status, self.blocks, held_minor
        )
