"""A wallet as the money rules need it. Pure."""

from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from common.events.parts import Blocks
from common.money import MINOR_MAX, to_major
from wallet_api import velocity_limits
from wallet_api.errors import BalanceLimitExceeded, InsufficientFunds, LimitExceeded, WalletClosed, WalletFrozen
from wallet_api.hold import Hold
from wallet_api.velocity_limits import Use, VelocityLimit

Direction = Literal["in", "out", "held"]
"""Where money moves: `held` is out of what a hold reserved before, which a freeze of `out` lets pass."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet at one of its versions; money is in minor units of its currency.

    Attributes:
        balance_minor: what is booked; below zero, the wallet is overdrawn.
        blocks: what a frozen wallet refuses; None means all.
        held_minor: what open holds reserve.
        overdraft_limit_minor: how much more than its own money may be spent or reserved.
        balance_max_minor: the most that it may have; None means what a wallet can hold.
        has_velocity_limits: whether the database has velocity limits of the wallet.
        velocity: the velocity limits, with what is used of each; loaded if there are any.
    """

    id: UUID
    user_id: str
    currency: str
    balance_minor: int
    version: int
    status: str
    blocks: Blocks | None = None
    held_minor: int = 0
    overdraft_limit_minor: int = 0
    balance_max_minor: int | None = None
    has_velocity_limits: bool = False
    velocity: tuple[VelocityLimit, ...] = ()

    @property
    def available_minor(self) -> int:
        """What may be spent or reserved. It is below zero if the overdraft limit was lowered below its use."""
        return self.balance_minor - self.held_minor + self.overdraft_limit_minor

    @property
    def most_minor(self) -> int:
        """The most that the wallet may have."""
        return MINOR_MAX if self.balance_max_minor is None else self.balance_max_minor

    def can_receive(self, amount_minor: int, currency: str, counts_as: str | None) -> bool:
        """Whether the amount may move into the wallet, by an entry of this type; None: by one that does not count."""
        is_open = self.status != "closed" and not self._refuses("in")
        if not is_open or self.currency != currency or self.balance_minor + amount_minor > self.most_minor:
            return False
        return counts_as is None or not velocity_limits.refusing(self.velocity, Use("in", counts_as, amount_minor, 1))

    def can_spend(self, amount_minor: int, counts_as: str | None, movements: int) -> bool:
        """Whether the amount is available, and no velocity limit refuses it; None: it does not count for limits."""
        if self.available_minor < amount_minor:
            return False
        return counts_as is None or not velocity_limits.refusing(
            self.velocity, Use("out", counts_as, amount_minor, movements)
        )

    def check_open(self, field: str, direction: Direction) -> None:
        """Refuse a command that names the wallet in this field, unless money may move in this direction.

        Raises:
            WalletFrozen, WalletClosed: it may not.
        """
        self.check_not_closed(field)
        if self._refuses(direction):
            where = "into" if direction == "in" else "out of"
            raise WalletFrozen(
                f"{field}: wallet {self.id} is frozen: no money moves {where} it. {_way_out(field, 'unfrozen')}",
                extensions={"blocks": self.blocks or "all"},
            )

    def check_not_closed(self, field: str) -> None:
        """Refuse a command that names the wallet in this field, if the wallet is closed.

        Raises:
            WalletClosed: it is.
        """
        if self.status == "closed":
            raise WalletClosed(f"{field}: wallet {self.id} is closed. {_way_out(field, 'reopened')}")

    def _refuses(self, direction: Direction) -> bool:
        return self.status == "frozen" and self.blocks in {None, "all", direction}

    def with_status(self, status: Literal["active", "frozen", "closed"], blocks: Blocks | None = None) -> "Wallet":
        """Return the wallet with another status, one version on."""
        return replace(self, version=self.version + 1, status=status, blocks=blocks)

    def moved(
        self,
        amount_minor: int,
        held_minor: int = 0,
        field: str = "amount",
        counts_as: str | None = None,
        hold: Hold | None = None,
    ) -> "Wallet":
        """Return the wallet one version on, after its balance and what it holds have changed by these amounts.

        Args:
            amount_minor: moves into the wallet, or, below zero, out of it.
            held_minor: changes what it holds.
            field: of the request has the amount.
            counts_as: the type of the ledger entry that counts for velocity limits; None: it does not count.
            hold: before the change, if that captures or releases it. It counts in any case.

        Raises:
            InsufficientFunds: more is taken than is available, or reserved than holds can reserve in all.
            BalanceLimitExceeded: its balance would be more than it may have.
            LimitExceeded: a velocity limit refuses it.
        """
        balance_minor = self.balance_minor + amount_minor
        held_after_minor = self.held_minor + held_minor
        # What takes nothing is never refused: a limit that was lowered below its use stops new spending only.
        taken_minor = held_minor - amount_minor
        if taken_minor > 0 and balance_minor - held_after_minor < -self.overdraft_limit_minor:
            raise self._insufficient(taken_minor, field)
        if amount_minor > 0 and balance_minor > self.most_minor:
            raise self._too_much(field)
        if held_after_minor > MINOR_MAX:
            raise self._unreservable(taken_minor, field)
        velocity = self.velocity
        if velocity and (counts_as or hold):
            velocity = self._counted(
                velocity_limits.use_of(counts_as or velocity_limits.HOLD, amount_minor, held_minor, hold), field
            )
        return Wallet(
            self.id,
            self.user_id,
            self.currency,
            balance_minor,
            self.version + 1,
            self.status,
            self.blocks,
            held_after_minor,
            self.overdraft_limit_minor,
            self.balance_max_minor,
            self.has_velocity_limits,
            velocity,
        )

    def _insufficient(self, needed_minor: int, field: str) -> InsufficientFunds:
        available, needed = to_major(self.available_minor, self.currency), to_major(needed_minor, self.currency)
        return InsufficientFunds(
            f"{field}: wallet {self.id} has {available} {self.currency} available, less than {needed}."
            " Fund the wallet, or send a smaller amount.",
            extensions={"available": available, "needed": needed},
        )

    def _unreservable(self, needed_minor: int, field: str) -> InsufficientFunds:
        """Return the refusal of what is available, but more than holds can reserve in all."""
        left, needed = to_major(MINOR_MAX - self.held_minor, self.currency), to_major(needed_minor, self.currency)
        return InsufficientFunds(
            f"{field}: holds on wallet {self.id} can reserve {left} {self.currency} more, less than {needed}."
            " Send a smaller amount.",
            extensions={"available": left, "needed": needed},
        )

    def _too_much(self, field: str) -> BalanceLimitExceeded:
        most = to_major(self.most_minor, self.currency)
        remaining = to_major(max(0, self.most_minor - self.balance_minor), self.currency)
        return BalanceLimitExceeded(
            f"{field}: wallet {self.id} can hold at most {most} {self.currency}. Send a smaller amount.",
            extensions={"balance_max": most, "remaining": remaining},
        )

    def _counted(self, use: Use, field: str) -> tuple[VelocityLimit, ...]:
        """Return the velocity limits after the use.

        Raises:
            LimitExceeded: one of them refuses it.
        """
        if limit := velocity_limits.refusing(self.velocity, use):
            raise LimitExceeded(
                f"{field}: limit {limit.id} of wallet {self.id} allows no more for now. Send a smaller amount, or wait"
                " until it resets.",
                extensions={
                    "limit_id": limit.id,
                    "window": limit.window,
                    **velocity_limits.use_json(limit, self.currency),
                },
            )
        return velocity_limits.counted(self.velocity, use)


def _way_out(field: str, then: str) -> str:
    """Return what the client does instead. A hold and a transaction that a request names have the wallets they have."""
    instead = "Use another wallet, or send" if field.endswith("wallet_id") else "Send"
    return f"{instead} a new request when it is {then}."
