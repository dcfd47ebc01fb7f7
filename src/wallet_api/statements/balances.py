"""A wallet's balance at one of its versions, and the statement of a period. Pure."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

Pages = AsyncIterator[Sequence[Mapping[Any, Any]]]
"""A statement's entries, page by page: rows of `wallet_transactions`."""


@dataclass(frozen=True, slots=True)
class Balance:
    """A wallet's balance at one of its versions, in minor units; version 0 is before its creation.

    Attributes:
        currency: of the wallet.
        newest_version: of the wallet, when this was read.
        version: the one whose balance this is.
        balance_minor: what was booked.
        held_minor: what open holds reserved.
        overdraft_limit_minor: how much more than its own money the wallet could spend.
        created_at: the time of the version; of version 0, that of the creation.
    """

    currency: str
    newest_version: int
    version: int
    balance_minor: int
    held_minor: int
    overdraft_limit_minor: int
    created_at: datetime

    @property
    def available_minor(self) -> int:
        """What the wallet could spend or reserve."""
        return self.balance_minor - self.held_minor + self.overdraft_limit_minor

    @property
    def is_superseded(self) -> bool:
        """Whether the wallet has a later version. All further versions are later still: times rise with versions."""
        return self.version < self.newest_version


@dataclass(frozen=True, slots=True)
class BalanceAt:
    """A balance; `is_final` says that the wallet can get no other version of the time `as_of` or earlier."""

    balance: Balance
    as_of: datetime
    is_final: bool


@dataclass(frozen=True, slots=True)
class Period:
    """A statement without its entries: those of the versions behind the opening's up to the closing's.

    Attributes:
        wallet_id: whose statement it is.
        start: the first moment of the period.
        end: the first moment after it.
        opening: the balance just before `start`.
        closing: the balance just before `end`.
        is_final: whether the statement can't change any more.
        read_at: the time of the database's clock when it was read.
    """

    wallet_id: UUID
    start: datetime
    end: datetime
    opening: Balance
    closing: Balance
    is_final: bool
    read_at: datetime
