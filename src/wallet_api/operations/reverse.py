"""Reverse: money of an earlier transaction moves back. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.access.caller import FUNDS_WRITE, OPS_WRITE, Caller
from common.money import to_major
from common.problems import Forbidden, ValidationProblem
from wallet_api.bodies import Amount, OperationBody, Text255, WalletId
from wallet_api.operations.errors import AlreadyReversed, NotReversible, ReceiverUnavailable, ReversalExceedsOriginal
from wallet_api.operations.holds import with_available
from wallet_api.operations.money_operation import minor_of
from wallet_api.operations.operation import Entry, LedgerTransaction, Operation, State
from wallet_api.operations.original import Original, OriginalEntry
from wallet_api.operations.split import RECEIVERS_MAX


class ReverseLeg(BaseModel):
    """What one receiver of a split gives back."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    to_wallet_id: Annotated[WalletId, Field(description="The receiver.")]
    amount: Amount


class ReverseBody(OperationBody):
    """How much of a transaction to reverse, and why. Callers that may read its history read the reason."""

    amount: Annotated[
        Amount | None, Field(description="By default all that is left. A split with several receivers has `legs`.")
    ] = None
    legs: Annotated[
        list[ReverseLeg] | None,
        Field(
            min_length=1,
            max_length=RECEIVERS_MAX,
            examples=[[{"to_wallet_id": "0198c2a5-0000-7000-8000-000000000001", "amount": "12.50"}]],
            description="The receivers that give back, in place of `amount`; by default all, all that is left.",
        ),
    ] = None
    reason: Annotated[Text255, Field(examples=["goods returned"])]


class _Leg(NamedTuple):
    """What one receiver gives back; `field` of the request says so."""

    receiver: OriginalEntry
    amount_minor: int
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverse(Operation):
    """Move money of a transaction back, all of it or a part: a new transaction, linked to the first one.

    A fund, a withdrawal, a transfer, a split and a capture can be reversed; all reversals together move at most what
    the transaction moved, leg by leg. A captured hold stays captured. The acting wallet, of which the reply tells and
    whose version `If-Match` names, is the receiver that gives back. If several receivers give back, or the world does,
    it is the payer. A caller that is bound to a user gives back what one wallet of that user received. Locks all
    wallets of the transaction.
    """

    name = "reverse"
    collection = "transactions"
    transaction_type = "REVERSAL"
    scope = OPS_WRITE
    body = ReverseBody
    status = 201

    original: Original
    amount: str | None
    legs: Sequence[ReverseLeg] | None
    reason: str

    @staticmethod
    def acting_wallet_id(original: Original, body: ReverseBody, caller: Caller) -> UUID:
        """Return the wallet that acts for a caller that may read the transaction."""
        named = None if body.legs is None else {leg.to_wallet_id for leg in body.legs}
        giving = [entry for entry in _own_receivers(original, caller) if named is None or entry.wallet_id in named]
        if original.is_reversible and len(giving) == 1 and giving[0].wallet_id:
            return giving[0].wallet_id
        if original.is_reversible and caller.user_id is None and original.payer.wallet_id:
            return original.payer.wallet_id
        # The command is refused, for a reason that does not lie in the wallet.
        return next(entry.wallet_id for entry in original.entries if entry.wallet_id and _is_own(entry, caller))

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        """All wallets of the transaction, so that its reversals wait for one another."""
        return self.original.wallet_ids

    @property
    def spending_ids(self) -> tuple[UUID, ...]:
        """All of them: each may be the one that gives back."""
        return self.wallet_ids

    @property
    def reverses_ids(self) -> tuple[UUID, ...]:
        """The transaction."""
        return (self.original.id,)

    @property
    def further_scope(self) -> str | None:
        """That of funds and payouts, if money leaves the system or comes into it, for a caller that is no operator."""
        return FUNDS_WRITE if self.original.has_world and OPS_WRITE not in self.caller.scopes else None

    def decide(self, state: State) -> tuple[LedgerTransaction, ...]:
        """Move the amount of each leg from its receiver to the payer."""
        self.acting_wallet(state)
        legs = self._legs(state)
        total_minor = sum(leg.amount_minor for leg in legs)
        released: list[LedgerTransaction] = []
        entries = [self._given_back(state, leg, released) for leg in legs]
        entries.append(self._got_back(state, total_minor))
        entries.sort(key=lambda entry: not (entry.wallet and entry.wallet.id == self.wallet_id))
        details = {"reverses_transaction_id": str(self.original.id), "reason": self.reason}
        reversal = self.transaction(total_minor, *entries, **details)
        return (*released, reversal._replace(reverses_id=self.original.id))

    def _given_back(self, state: State, leg: _Leg, released: list[LedgerTransaction]) -> Entry:
        """Return the entry of a receiver; add the releases of overdue holds for which it was short of funds."""
        if leg.receiver.wallet_id is None:
            return Entry(None, -leg.amount_minor)
        wallet = state.wallets[leg.receiver.wallet_id]
        wallet.check_open("transaction_id", "out")
        wallet, expired = with_available(state, wallet, leg.amount_minor)
        released += expired
        return Entry(wallet.moved(-leg.amount_minor, field=leg.field), -leg.amount_minor)

    def _got_back(self, state: State, amount_minor: int) -> Entry:
        """Return the entry of the payer, last: a caller learns nothing of it if it has not the money to give back."""
        payer = self.original.payer
        if payer.wallet_id is None:
            return Entry(None, amount_minor)
        wallet = state.wallets[payer.wallet_id]
        if not self.caller.owns(wallet.user_id) and not wallet.can_receive(amount_minor, wallet.currency, None):
            raise ReceiverUnavailable(wallet.id, "transaction_id")
        wallet.check_open("transaction_id", "in")
        return Entry(wallet.moved(amount_minor), amount_minor)

    def _legs(self, state: State) -> list[_Leg]:
        """Return what each receiver gives back.

        Raises:
            NotReversible, Forbidden, ValidationProblem, AlreadyReversed, ReversalExceedsOriginal: none can, or not so
                much.
        """
        original = self.original
        if not original.is_reversible:
            raise NotReversible(original.id, original.type)
        own = _own_receivers(original, self.caller)
        if not own:
            raise Forbidden(
                "transaction_id: the caller is bound to a user, and gives back only what that user's wallets received."
                " Ask the receiver, or use other credentials."
            )
        told = self._told_legs(own)
        given_back = state.reversals.get(original.id, Counter())
        left_minor = {entry.wallet_id: entry.amount_minor - given_back.get(entry.wallet_id, 0) for entry in own}
        legs = told or [_Leg(entry, left, "amount") for entry in own if (left := left_minor[entry.wallet_id])]
        self._check_left(legs, own, left_minor)
        return legs

    def _told_legs(self, own: Sequence[OriginalEntry]) -> list[_Leg]:
        """Return the legs whose amounts the request has; none if it asks for all that is left.

        Raises:
            ValidationProblem: they are no legs of the transaction, or not one of each.
        """
        if self.caller.user_id is not None and len(own) > 1 and (self.legs is None or len(self.legs) > 1):
            raise ValidationProblem.of("legs", "must name one wallet, because the caller is bound to a user")
        if self.legs is not None:
            return self._named_legs(self.legs, {entry.wallet_id: entry for entry in own})
        if self.amount is None:
            return []
        if len(own) > 1:
            raise ValidationProblem.of("amount", "must be left out, because several wallets received; send legs")
        return [_Leg(own[0], minor_of(self.amount, self.original.currency, "amount"), "amount")]

    def _named_legs(self, legs: Sequence[ReverseLeg], own: Mapping[UUID | None, OriginalEntry]) -> list[_Leg]:
        if self.amount is not None:
            raise ValidationProblem.of("amount", "must be left out, because the legs have amounts")
        named: dict[UUID, _Leg] = {}
        for number, leg in enumerate(legs):
            field = f"legs.{number}.to_wallet_id"
            if leg.to_wallet_id not in own:
                raise ValidationProblem.of(field, "must be a wallet that received money of the transaction")
            if leg.to_wallet_id in named:
                raise ValidationProblem.of(field, "is named twice; send one leg for both amounts")
            field = f"legs.{number}.amount"
            amount_minor = minor_of(leg.amount, self.original.currency, field)
            named[leg.to_wallet_id] = _Leg(own[leg.to_wallet_id], amount_minor, field)
        return list(named.values())

    def _check_left(
        self, legs: Sequence[_Leg], own: Sequence[OriginalEntry], left_minor: Mapping[UUID | None, int]
    ) -> None:
        currency = self.original.currency
        done = [leg.receiver for leg in legs if not left_minor[leg.receiver.wallet_id]] if legs else own
        if done:
            reversed_minor = sum(entry.amount_minor for entry in done)
            raise AlreadyReversed(self.original.id, to_major(reversed_minor, currency), to_major(0, currency), currency)
        for leg in legs:
            if leg.amount_minor > left_minor[leg.receiver.wallet_id]:
                reversible = to_major(left_minor[leg.receiver.wallet_id], currency)
                raise ReversalExceedsOriginal(leg.field, reversible, currency)


def _own_receivers(original: Original, caller: Caller) -> list[OriginalEntry]:
    """Return the receivers that the caller may let give back."""
    return [entry for entry in original.receivers if _is_own(entry, caller)]


def _is_own(entry: OriginalEntry, caller: Caller) -> bool:
    """Whether the wallet is the caller's. All are, and the world account too, if it is bound to no user."""
    return caller.user_id is None or caller.user_id == entry.user_id
