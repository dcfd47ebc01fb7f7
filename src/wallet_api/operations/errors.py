"""The problems for which an operation refuses its command, besides those that a wallet itself refuses.

    Problem
    ├── WalletNotFrozen            409 wallet-not-frozen            (decided)
    ├── WalletNotClosed            409 wallet-not-closed            (decided)
    ├── WalletNotEmpty             409 wallet-not-empty             (decided)
    ├── HoldNotOpen                409 hold-not-open                (decided)
    ├── HoldExpired                409 hold-expired                 (decided)
    ├── NotReversible              409 not-reversible               (decided)
    ├── AlreadyReversed            409 already-reversed             (decided)
    ├── VersionMismatch            412 version-mismatch
    ├── CurrencyMismatch           422 currency-mismatch            (decided)
    ├── SameWallet                 422 same-wallet                  (decided)
    ├── CaptureExceedsHold         422 capture-exceeds-hold         (decided)
    ├── ReversalExceedsOriginal    422 reversal-exceeds-original    (decided)
    └── ReceiverUnavailable        422 receiver-unavailable         (decided)

`wallet_api/errors.py` says what a decided problem is.
"""

from datetime import datetime
from uuid import UUID

from common.moments import timestamp
from common.problems import Problem


class WalletNotFrozen(Problem):
    """The wallet can't be unfrozen: it isn't frozen; `wallet_status` says what it is."""

    status = 409
    code = "wallet-not-frozen"
    title = "Wallet not frozen"
    decided = True

    def __init__(self, wallet_id: UUID, wallet_status: str) -> None:
        super().__init__(
            f"wallet_id: wallet {wallet_id} is {wallet_status}, not frozen. Read the wallet.",
            extensions={"wallet_status": wallet_status},
        )


class WalletNotClosed(Problem):
    """The wallet can't be reopened: it isn't closed; `wallet_status` says what it is."""

    status = 409
    code = "wallet-not-closed"
    title = "Wallet not closed"
    decided = True

    def __init__(self, wallet_id: UUID, wallet_status: str) -> None:
        super().__init__(
            f"wallet_id: wallet {wallet_id} is {wallet_status}, not closed. Read the wallet.",
            extensions={"wallet_status": wallet_status},
        )


class WalletNotEmpty(Problem):
    """The wallet can't be closed: `balance` is what it has, and `open_holds` is what open holds reserve of that."""

    status = 409
    code = "wallet-not-empty"
    title = "Wallet not empty"
    decided = True

    def __init__(self, wallet_id: UUID, balance: str, open_holds: str, currency: str) -> None:
        super().__init__(
            f"wallet_id: wallet {wallet_id} has {balance} {currency}, and open holds reserve {open_holds} of it."
            " Capture or void open holds. Then fund an overdrawn wallet, or name sweep_to_wallet_id.",
            extensions={"balance": balance, "open_holds": open_holds, "currency": currency},
        )


class HoldNotOpen(Problem):
    """The hold was captured or voided."""

    status = 409
    code = "hold-not-open"
    title = "Hold not open"
    decided = True

    def __init__(self, hold_id: UUID, status: str) -> None:
        super().__init__(
            f"hold_id: hold {hold_id} is {status}. Place a new hold.",
            extensions={"hold_id": str(hold_id), "hold_status": status},
        )


class HoldExpired(Problem):
    """The hold has expired."""

    status = 409
    code = "hold-expired"
    title = "Hold expired"
    decided = True

    def __init__(self, hold_id: UUID, expires_at: datetime) -> None:
        super().__init__(
            f"hold_id: hold {hold_id} has expired. Place a new hold.",
            extensions={"hold_id": str(hold_id), "hold_status": "expired", "expires_at": timestamp(expires_at)},
        )


class NotReversible(Problem):
    """Transactions of this type can't be reversed: they move no money, or are reversals."""

    status = 409
    code = "not-reversible"
    title = "Not reversible"
    decided = True

    def __init__(self, transaction_id: UUID, transaction_type: str) -> None:
        super().__init__(
            f"transaction_id: transaction {transaction_id} is a {transaction_type}. Reverse a transaction that moved"
            " money, and is no reversal.",
            extensions={"transaction_id": str(transaction_id), "transaction_type": transaction_type},
        )


class AlreadyReversed(Problem):
    """Nothing is left to reverse: `reversed` is what was reversed of what the request names."""

    status = 409
    code = "already-reversed"
    title = "Already reversed"
    decided = True

    def __init__(self, transaction_id: UUID, reversed_: str, reversible: str, currency: str) -> None:
        super().__init__(
            f"transaction_id: all {reversed_} {currency} of transaction {transaction_id} were reversed. Read the"
            " transaction: it names its reversals.",
            extensions={"transaction_id": str(transaction_id), "reversed": reversed_, "reversible": reversible},
        )


class VersionMismatch(Problem):
    """The wallet isn't at the version that `If-Match` names; `version` is the one at which it is."""

    status = 412
    code = "version-mismatch"
    title = "Version mismatch"


class CurrencyMismatch(Problem):
    """The request, the sender and the receiver do not have one currency."""

    status = 422
    code = "currency-mismatch"
    title = "Currency mismatch"
    decided = True


class SameWallet(Problem):
    """The sender and the receiver are one wallet."""

    status = 422
    code = "same-wallet"
    title = "Same wallet"
    decided = True


class CaptureExceedsHold(Problem):
    """More would be captured than `capture_max` allows."""

    status = 422
    code = "capture-exceeds-hold"
    title = "Capture exceeds hold"
    decided = True

    def __init__(self, capturable: str, currency: str) -> None:
        super().__init__(
            f"amount: at most {capturable} {currency} can be captured. Send a smaller amount.",
            extensions={"capturable": capturable},
        )


class ReversalExceedsOriginal(Problem):
    """More would be reversed than the transaction moved, less what was reversed before."""

    status = 422
    code = "reversal-exceeds-original"
    title = "Reversal exceeds original"
    decided = True

    def __init__(self, field: str, reversible: str, currency: str) -> None:
        super().__init__(
            f"{field}: at most {reversible} {currency} can still be reversed. Send a smaller amount.",
            extensions={"reversible": reversible},
        )


class ReceiverUnavailable(Problem):
    """The receiver cannot take the payment. The caller may not read that wallet, so it does not learn why."""

    status = 422
    code = "receiver-unavailable"
    title = "Receiver unavailable"
    decided = True

    def __init__(self, wallet_id: UUID, field: str) -> None:
        # A hold and a transaction that a request names have the wallets they have.
        way_out = "Ask its owner, or send to another wallet." if field.endswith("wallet_id") else "Ask its owner."
        super().__init__(f"{field}: wallet {wallet_id} cannot receive this payment. {way_out}")
