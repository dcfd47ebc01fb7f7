"""Hold: part of a wallet's balance is reserved for a receiver. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field

from common.access.caller import WALLETS_WRITE
from common.identifiers import new_id
from common.problems import ValidationProblem
from wallet_api.bodies import Amount, MoneyBody, WalletId
from wallet_api.hold import Hold
from wallet_api.operations.errors import SameWallet
from wallet_api.operations.holds import HoldPayment, hold_transaction, with_available
from wallet_api.operations.money_operation import MoneyOperation, minor_of
from wallet_api.operations.operation import Entry, LedgerTransaction, State
from wallet_api.operations.receiver import find_receiver

_DAY_SECONDS: Final = 86_400


class HoldBody(MoneyBody):
    """Money to reserve."""

    to_wallet_id: Annotated[
        WalletId | None,
        Field(description="Who gets what is captured; without it the money leaves the system."),
    ] = None
    expires_in: Annotated[int, Field(ge=1, le=366 * _DAY_SECONDS, description="Seconds; 7 days by default.")] = (
        7 * _DAY_SECONDS
    )
    capture_max: Annotated[
        Amount | None, Field(description="The most that may be captured in all; by default the amount.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceHold(HoldPayment, MoneyOperation):
    """Reserve money for another wallet, or to be paid out. Locks both wallets.

    The balance stays as it is; `available` falls. A capture moves the money, a void or the expiry releases it. Only the
    payer's version rises. A hold whose money will leave the system needs the scope `funds:write` too.
    """

    name = "holds"
    transaction_type = "HOLD"
    scope = WALLETS_WRITE
    body = HoldBody
    status = 201

    to_wallet_id: UUID | None
    expires_in: int
    capture_max: str | None

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Reserve the amount of the payer's balance; the world account takes the other side."""
        if self.to_wallet_id == self.wallet_id:
            raise SameWallet("to_wallet_id: must be another wallet than the payer.")
        payer = self.open_wallet(state, "out")
        currency = payer.currency
        receiver = find_receiver(state.wallets, self.to_wallet_id, self.caller, currency) if self.to_wallet_id else None
        amount_minor = self.amount_minor(payer)
        hold = self._hold(state, currency, amount_minor)
        payer, expired = with_available(state, payer, amount_minor, self.transaction_type)
        reserved = payer.moved(0, amount_minor, counts_as=self.transaction_type)
        if receiver:
            # The receiver's velocity limits count when it gets the money.
            receiver.received(amount_minor, currency, counts_as=None)
        entries = Entry(reserved, 0, amount_minor), Entry(None, 0, -amount_minor)
        return (*expired, hold_transaction(self, state, hold, amount_minor, *entries))

    def _hold(self, state: State, currency: str, amount_minor: int) -> Hold:
        capture_max = self.capture_max
        capture_max_minor = amount_minor if capture_max is None else minor_of(capture_max, currency, "capture_max")
        if capture_max_minor < amount_minor:
            raise ValidationProblem.of("capture_max", "must be at least the amount")
        return Hold(
            id=new_id(),
            wallet_id=self.wallet_id,
            to_wallet_id=self.to_wallet_id,
            currency=currency,
            amount_minor=amount_minor,
            capture_max_minor=capture_max_minor,
            captured_minor=0,
            status="open",
            expires_at=state.now + timedelta(seconds=self.expires_in),
            created_at=state.now,
        )
