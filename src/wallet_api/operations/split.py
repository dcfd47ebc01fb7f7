"""Split: one payment to several wallets of the same currency. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from common.access.caller import WALLETS_WRITE
from common.identifiers import parse_uuid
from common.money import to_major
from common.problems import ValidationProblem
from wallet_api.bodies import Amount, Currency, OperationBody
from wallet_api.operations.errors import SameWallet
from wallet_api.operations.holds import with_available
from wallet_api.operations.money_operation import CurrencyOperation, minor_of
from wallet_api.operations.operation import Entry, LedgerTransaction, State
from wallet_api.operations.receiver import find_receiver

RECEIVERS_MAX: Final = 20
REST: Final = "rest"


class SplitLeg(BaseModel):
    """What one receiver gets."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    to_wallet_id: Annotated[UUID, BeforeValidator(parse_uuid)]
    amount: Annotated[
        Amount,
        Field(
            examples=["12.50", REST],
            description=f'Major units, or "{REST}": what the other legs leave of the payment\'s amount.',
        ),
    ]


class SplitBody(OperationBody):
    """Money to send to several wallets."""

    legs: Annotated[
        list[SplitLeg],
        Field(
            min_length=1,
            max_length=RECEIVERS_MAX,
            examples=[
                [
                    {"to_wallet_id": "0198c2a5-0000-7000-8000-000000000001", "amount": "12.50"},
                    {"to_wallet_id": "0198c2a5-0000-7000-8000-000000000002", "amount": REST},
                ]
            ],
        ),
    ]
    amount: Annotated[
        Amount | None,
        Field(examples=["50.00"], description=f'The sum of the legs. It is needed if a leg\'s amount is "{REST}".'),
    ] = None
    currency: Currency | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Split(CurrencyOperation):
    """Send one payment to at most 20 wallets of the same currency, in one transaction. Locks all of them.

    Each leg has an amount; one leg may have the rest of the payment's `amount`. The reply tells nothing of a wallet
    that the caller may not read, but that it cannot receive.
    """

    name = "split"
    transaction_type = "SPLIT"
    scope = WALLETS_WRITE
    body = SplitBody

    legs: Sequence[SplitLeg]
    amount: str | None

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        """The payer and the receivers."""
        return self.wallet_id, *(leg.to_wallet_id for leg in self.legs)

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Move each leg's amount from the payer to its receiver."""
        self._check_legs()
        payer = self.open_wallet(state, "out")
        currency = payer.currency
        receivers = [
            find_receiver(
                state.wallets,
                leg.to_wallet_id,
                self.caller,
                currency,
                f"legs.{number}.to_wallet_id",
                f"legs.{number}.amount",
            )
            for number, leg in enumerate(self.legs)
        ]
        amounts_minor = self._amounts_minor(currency)
        total_minor = sum(amounts_minor)
        payer, expired = with_available(state, payer, total_minor, self.transaction_type)
        paid = payer.moved(-total_minor, counts_as=self.transaction_type)
        received = [
            Entry(receiver.received(amount_minor, currency, self.transaction_type), amount_minor)
            for receiver, amount_minor in zip(receivers, amounts_minor, strict=True)
        ]
        return (*expired, self.transaction(total_minor, Entry(paid, -total_minor), *received))

    def _check_legs(self) -> None:
        """Refuse legs that are wrong whatever the wallets are.

        Raises:
            SameWallet, ValidationProblem: they are.
        """
        legs: dict[UUID, int] = {}
        for number, leg in enumerate(self.legs):
            field = f"legs.{number}.to_wallet_id"
            if leg.to_wallet_id == self.wallet_id:
                raise SameWallet(f"{field}: must be another wallet than the payer.")
            first = legs.setdefault(leg.to_wallet_id, number)
            if first != number:
                raise ValidationProblem.of(field, f"is the receiver of legs.{first} too; send one leg for both amounts")
        rests = self._rests
        if len(rests) > 1:
            raise ValidationProblem.of(f"legs.{rests[1]}.amount", f"must be an amount: legs.{rests[0]} has the rest")
        if rests and self.amount is None:
            raise ValidationProblem.of("amount", f"is needed, because legs.{rests[0]} has the rest")

    @property
    def _rests(self) -> list[int]:
        """The numbers of the legs that have the rest."""
        return [number for number, leg in enumerate(self.legs) if leg.amount == REST]

    def _amounts_minor(self, currency: str) -> list[int]:
        """Return the amount of each leg, in minor units.

        Raises:
            ValidationProblem: one isn't an amount of the currency, or they don't make the payment's amount.
        """
        told_minor = [
            minor_of(leg.amount, currency, f"legs.{number}.amount")
            for number, leg in enumerate(self.legs)
            if leg.amount != REST
        ]
        if self.amount is None:
            return told_minor
        left_minor = minor_of(self.amount, currency, "amount") - sum(told_minor)
        if not self._rests:
            if left_minor:
                total = to_major(sum(told_minor), currency)
                raise ValidationProblem.of("amount", f"must be the sum of the legs, {total}, or be left out")
            return told_minor
        (number,) = self._rests
        if left_minor <= 0:
            raise ValidationProblem.of(
                f"legs.{number}.amount",
                f"must be more than zero: the other legs leave {to_major(left_minor, currency)} of the amount",
            )
        return [*told_minor[:number], left_minor, *told_minor[number:]]
