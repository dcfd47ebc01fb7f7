"""A wallet of the demo, as it must be by the API's replies."""

from dataclasses import dataclass
from decimal import Decimal

from common.money import exponent_of


@dataclass
class WalletModel:
    """A wallet, and the balance that it must have by the API's replies."""

    id: str
    user_id: str
    currency: str
    balance: Decimal = Decimal(0)

    def amount(self, units: int) -> str:
        """Return that many minor units as an amount."""
        return str(Decimal(units).scaleb(-exponent_of(self.currency)))
