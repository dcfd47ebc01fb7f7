"""The money rules: what a command does to its wallets, or the problem for which it is refused. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from common.identifiers import new_id
from common.money import MINOR_MAX, AmountError, to_major, to_minor
from common.problems import Problem, ValidationProblem
from wallet_api.commands import Fund, MoneyCommand, Transfer
from wallet_api.errors import (
    BalanceLimitExceeded,
    CurrencyMismatch,
    InsufficientFunds,
    ReceiverUnavailable,
    SameWallet,
    VersionMismatch,
    WalletClosed,
    WalletFrozen,
    WalletNotFound,
)


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet as the rules need it; the balance is in minor units of its currency."""

    id: UUID
    user_id: str
    currency: str
    balance_minor: int
    version: int
    status: str

    def can_receive(self, amount_minor: int, currency: str) -> bool:
        """Whether the amount may move into the wallet."""
        return self.status == "active" and self.currency == currency and self.balance_minor + amount_minor <= MINOR_MAX

    def moved(self, amount_minor: int) -> "Wallet":
        """Return the wallet after a movement of the amount into it (or, below zero, out of it), one version on.

        Raises:
            InsufficientFunds: its balance is less than the amount.
            BalanceLimitExceeded: its balance would be more than a wallet can hold.
        """
        balance_minor = self.balance_minor + amount_minor
        if balance_minor < 0:
            raise InsufficientFunds(
                f"amount: wallet {self.id} has {to_major(self.balance_minor, self.currency)} {self.currency},"
                f" less than {to_major(-amount_minor, self.currency)}. Fund the wallet, or send a smaller amount."
            )
        if balance_minor > MINOR_MAX:
            most = to_major(MINOR_MAX, self.currency)
            raise BalanceLimitExceeded(
                f"amount: wallet {self.id} can hold at most {most} {self.currency}. Send a smaller amount."
            )
        return Wallet(self.id, self.user_id, self.currency, balance_minor, self.version + 1, self.status)


@dataclass(frozen=True, slots=True)
class Movement:
    """A movement of money, with its wallets as they are after it.

    `amount_minor` is above zero. It goes from `wallet` to `receiver`. Without a receiver it goes from the currency's
    world account into `wallet`.
    """

    transaction_id: UUID
    type: Literal["FUND", "TRANSFER"]
    command: MoneyCommand
    amount_minor: int
    wallet: Wallet
    receiver: Wallet | None

    @property
    def wallets(self) -> tuple[Wallet, ...]:
        """The wallets that it changes, the acting wallet first."""
        return (self.wallet,) if self.receiver is None else (self.wallet, self.receiver)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger; `wallet` None is the world account. A movement's entries sum to zero."""

    wallet: Wallet | None
    counterparty: Wallet | None
    amount_minor: int


def entries_of(movement: Movement) -> tuple[Entry, Entry]:
    """Return the movement's two sides, the acting wallet's first."""
    if movement.receiver is None:
        return (
            Entry(movement.wallet, None, movement.amount_minor),
            Entry(None, movement.wallet, -movement.amount_minor),
        )
    return (
        Entry(movement.wallet, movement.receiver, -movement.amount_minor),
        Entry(movement.receiver, movement.wallet, movement.amount_minor),
    )


def decide_fund(wallets: Mapping[UUID, Wallet], command: Fund) -> Movement | Problem:
    """Return what funding does, or the Problem for which it is refused."""
    try:
        return _fund(wallets, command)
    except Problem as refusal:
        return refusal


def decide_transfer(wallets: Mapping[UUID, Wallet], command: Transfer) -> Movement | Problem:
    """Return what the transfer does, or the Problem for which it is refused."""
    try:
        return _transfer(wallets, command)
    except Problem as refusal:
        return refusal


def _fund(wallets: Mapping[UUID, Wallet], command: Fund) -> Movement:
    wallet = _acting_wallet(wallets, command)
    amount_minor = _amount_minor(wallet, command)
    return Movement(new_id(), "FUND", command, amount_minor, wallet.moved(amount_minor), None)


def _transfer(wallets: Mapping[UUID, Wallet], command: Transfer) -> Movement:
    if command.to_wallet_id == command.wallet_id:
        raise SameWallet("to_wallet_id: must be another wallet than the sender.")
    sender = _acting_wallet(wallets, command)
    receiver = wallets.get(command.to_wallet_id)
    if receiver is None:
        raise WalletNotFound(command.to_wallet_id, "to_wallet_id")
    is_readable = command.caller.owns(receiver.user_id)
    if is_readable:
        _check_receiver(receiver, sender.currency)
    amount_minor = _amount_minor(sender, command)
    sent = sender.moved(-amount_minor)
    # Last: a caller that could not send the money learns nothing of another user's wallet (decision 0024).
    if not is_readable and not receiver.can_receive(amount_minor, sender.currency):
        raise ReceiverUnavailable(receiver.id)
    return Movement(new_id(), "TRANSFER", command, amount_minor, sent, receiver.moved(amount_minor))


def _check_receiver(receiver: Wallet, currency: str) -> None:
    _check_open(receiver, "to_wallet_id")
    if receiver.currency != currency:
        raise CurrencyMismatch(
            f"to_wallet_id: wallet {receiver.id} is in {receiver.currency}, not {currency}."
            " Send to a wallet of the sender's currency."
        )


def find_acting(wallets: Mapping[UUID, Wallet], command: MoneyCommand) -> Wallet | None:
    """Return the wallet that the command moves; None, too, where it isn't the caller's: it gets the same reply."""
    wallet = wallets.get(command.wallet_id)
    return wallet if wallet and command.caller.owns(wallet.user_id) else None


def _acting_wallet(wallets: Mapping[UUID, Wallet], command: MoneyCommand) -> Wallet:
    wallet = find_acting(wallets, command)
    if wallet is None:
        raise WalletNotFound(command.wallet_id)
    if command.if_match is not None and wallet.version not in command.if_match:
        raise VersionMismatch(
            f"If-Match: wallet {wallet.id} is at version {wallet.version}. Read the wallet, and send its new ETag."
        )
    _check_open(wallet, "wallet_id")
    if command.currency not in {None, wallet.currency}:
        raise CurrencyMismatch(
            f"currency: wallet {wallet.id} is in {wallet.currency}, not {command.currency}. Send {wallet.currency}."
        )
    return wallet


def _check_open(wallet: Wallet, field: str) -> None:
    if wallet.status == "frozen":
        raise WalletFrozen(f"{field}: wallet {wallet.id} is frozen. Use another wallet until it is released.")
    if wallet.status == "closed":
        raise WalletClosed(f"{field}: wallet {wallet.id} is closed. Use another wallet.")


def _amount_minor(wallet: Wallet, command: MoneyCommand) -> int:
    try:
        return to_minor(command.amount, wallet.currency)
    except AmountError as error:
        raise ValidationProblem.of("amount", str(error)) from error
