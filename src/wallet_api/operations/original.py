"""A transaction that is to be reversed, as the money rules need it. Pure."""

from typing import Final, NamedTuple
from uuid import UUID

REVERSIBLE: Final = ("FUND", "WITHDRAW", "TRANSFER", "SPLIT", "CAPTURE")
"""The types of transactions that can be reversed: those that move money, without reversals."""


class OriginalEntry(NamedTuple):
    """An entry of the transaction.

    Attributes:
        wallet_id: None is the currency's world account.
        user_id: of the wallet.
        amount_minor: moved into the wallet or, below zero, out of it.
    """

    wallet_id: UUID | None
    user_id: str | None
    amount_minor: int


class Original(NamedTuple):
    """The transaction that a reversal names. Its entries never change, so a request reads them before its batch.

    Attributes:
        id: of the transaction.
        type: of its entries.
        currency: of all of them.
        entries: the acting wallet's is the first.
    """

    id: UUID
    type: str
    currency: str
    entries: tuple[OriginalEntry, ...]

    @property
    def is_reversible(self) -> bool:
        """Whether its type can be reversed."""
        return self.type in REVERSIBLE

    @property
    def payer(self) -> OriginalEntry:
        """Who paid, and gets back. A reversible transaction has one."""
        return next(entry for entry in self.entries if entry.amount_minor < 0)

    @property
    def receivers(self) -> list[OriginalEntry]:
        """Who received, and gives back: its legs."""
        return [entry for entry in self.entries if entry.amount_minor > 0]

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        """All its wallets."""
        return tuple(entry.wallet_id for entry in self.entries if entry.wallet_id)

    @property
    def has_world(self) -> bool:
        """Whether its money came from the world account, or went there."""
        return any(entry.wallet_id is None and entry.amount_minor for entry in self.entries)
