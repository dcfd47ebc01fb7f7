"""Limits: how far a wallet may be overdrawn, how much it may have, and how much may move in a time. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from common.access.caller import OPS_WRITE
from common.events.parts import LimitDirection, LimitWindow
from common.money import AmountError, to_major, to_minor_or_zero
from common.problems import ValidationProblem
from wallet_api.bodies import Amount, OperationBody, Text255
from wallet_api.operations.money_operation import minor_of
from wallet_api.operations.operation import Entry, LedgerTransaction, Operation, State
from wallet_api.velocity_limits import COUNTED_TYPES, VELOCITY_LIMITS_MAX, VelocityLimit, limit_json, window_start
from wallet_api.wallet import Wallet

_COUNT_MAX: Final = 1_000_000_000

CountedType = Literal["FUND", "WITHDRAW", "TRANSFER", "SPLIT", "HOLD", "CAPTURE"]


def _check_types(types: list[CountedType]) -> list[CountedType]:
    if len(set(types)) < len(types):
        raise ValueError("must name each type once")
    return types


class VelocityBody(BaseModel):
    """A velocity limit: how much, or how often, may move in a window of time."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", examples=["daily-out"], description="Unique in the wallet.")
    ]
    direction: LimitDirection
    types: Annotated[
        Annotated[list[CountedType], Field(min_length=1), AfterValidator(_check_types)] | None,
        Field(
            examples=[["TRANSFER", "SPLIT"]],
            description="The types of ledger entries that count; all without it. Out of a wallet, a hold counts when"
            " it is made, as HOLD. Into a wallet, its capture counts, as CAPTURE.",
        ),
    ] = None
    window: Annotated[LimitWindow, Field(examples=["day"], description="In UTC; a week begins on Monday.")]
    amount: Annotated[Amount | None, Field(examples=["500.00"], description="The most that may move.")] = None
    count: Annotated[int | None, Field(ge=1, le=_COUNT_MAX, description="The most movements.")] = None


class LimitsBody(OperationBody):
    """The limits of a wallet: they replace all that it has."""

    overdraft_limit: Annotated[
        Amount, Field(examples=["100.00"], description="How much more than its own money may be spent; 0 is none.")
    ]
    balance_max: Annotated[
        Amount | None, Field(examples=["10000.00"], description="The most that it may have; null is no limit.")
    ]
    velocity: Annotated[
        list[VelocityBody],
        Field(
            max_length=VELOCITY_LIMITS_MAX,
            examples=[[{"id": "daily-out", "direction": "out", "window": "day", "amount": "500.00", "count": 10}]],
        ),
    ]
    reason: Text255 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLimits(Operation):
    """Replace the limits of a wallet: overdraft, ceiling and velocity. Locks the wallet.

    `If-Match` is required. A limit below what is used only refuses new spending. A velocity limit counts from the
    moment it is set; it keeps what is used of it, if its id, direction, types and window stay the same.
    """

    name = "limits"
    method = "PUT"
    transaction_type = "LIMITS"
    scope = OPS_WRITE
    body = LimitsBody

    overdraft_limit: str
    balance_max: str | None
    velocity: Sequence[VelocityBody]
    reason: str | None

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Give the wallet these limits; no money moves."""
        wallet = self.acting_wallet(state)
        wallet.check_not_closed("wallet_id")
        currency = wallet.currency
        self._check_velocity()
        limited = replace(
            wallet,
            version=wallet.version + 1,
            overdraft_limit_minor=_minor_or_zero(self.overdraft_limit, currency, "overdraft_limit"),
            balance_max_minor=self._balance_max_minor(currency),
            has_velocity_limits=bool(self.velocity),
            velocity=self._velocity(wallet, state),
        )
        return (self.transaction(0, Entry(limited, 0), **limits_json(limited), reason=self.reason),)

    def _balance_max_minor(self, currency: str) -> int | None:
        return None if self.balance_max is None else _minor_or_zero(self.balance_max, currency, "balance_max")

    def _check_velocity(self) -> None:
        """Refuse velocity limits that mean nothing.

        Raises:
            ValidationProblem: one of them does.
        """
        first: dict[str, int] = {}
        for number, limit in enumerate(self.velocity):
            field = f"velocity.{number}"
            if first.setdefault(limit.id, number) != number:
                raise ValidationProblem.of(f"{field}.id", f"is that of velocity.{first[limit.id]} too")
            if limit.window == "transaction" and (limit.amount is None or limit.count is not None):
                raise ValidationProblem.of(field, "must have an amount and no count: the window is one transaction")
            if limit.amount is None and limit.count is None:
                raise ValidationProblem.of(field, "must have an amount or a count")
            offered = COUNTED_TYPES[limit.direction]
            if not set(offered).issuperset(limit.types or ()):
                raise ValidationProblem.of(f"{field}.types", f"must be of {', '.join(offered)}")

    def _velocity(self, wallet: Wallet, state: State) -> tuple[VelocityLimit, ...]:
        before = {_kind(limit): limit for limit in wallet.velocity}
        asked = [self._limit(number, wallet, state) for number in range(len(self.velocity))]
        return tuple(
            before[_kind(limit)]._replace(amount_minor=limit.amount_minor, count_max=limit.count_max)
            if _kind(limit) in before
            else limit
            for limit in asked
        )

    def _limit(self, number: int, wallet: Wallet, state: State) -> VelocityLimit:
        asked, currency = self.velocity[number], wallet.currency
        amount = asked.amount
        return VelocityLimit(
            id=asked.id,
            direction=asked.direction,
            types=tuple(sorted(asked.types or ())),
            window=asked.window,
            amount_minor=None if amount is None else minor_of(amount, currency, f"velocity.{number}.amount"),
            count_max=asked.count,
            since_version=wallet.version + 1,
            since=state.now,
            window_start=window_start(asked.window, state.now),
        )


def limits_json(wallet: Wallet) -> dict[str, object]:
    """Return the wallet's limits as JSON values."""
    most_minor, currency = wallet.balance_max_minor, wallet.currency
    return {
        "overdraft_limit": to_major(wallet.overdraft_limit_minor, currency),
        "balance_max": None if most_minor is None else to_major(most_minor, currency),
        "velocity": [limit_json(limit, currency) for limit in wallet.velocity],
    }


def _kind(limit: VelocityLimit) -> tuple[object, ...]:
    """Return what must stay the same for a limit to keep what is used of it."""
    return limit.id, limit.direction, limit.types, limit.window


def _minor_or_zero(amount: str, currency: str, field: str) -> int:
    try:
        return to_minor_or_zero(amount, currency)
    except AmountError as error:
        raise ValidationProblem.of(field, str(error)) from error


def sets_limits(transaction: LedgerTransaction) -> bool:
    """Return whether the transaction sets the limits of its wallet."""
    return transaction.type == SetLimits.transaction_type
