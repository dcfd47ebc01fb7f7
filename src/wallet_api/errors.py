"""The problems for which the wallet API refuses a request.

    Problem
    ├── IdempotencyKeyRequired     400 idempotency-key-required
    ├── WalletNotFound             404 wallet-not-found
    ├── HoldNotFound               404 hold-not-found
    ├── TransactionNotFound        404 transaction-not-found
    ├── NotAcceptable              406 not-acceptable
    ├── WalletFrozen               409 wallet-frozen                (decided)
    ├── WalletClosed               409 wallet-closed                (decided)
    ├── WalletNotFrozen            409 wallet-not-frozen            (decided)
    ├── WalletNotClosed            409 wallet-not-closed            (decided)
    ├── WalletNotEmpty             409 wallet-not-empty             (decided)
    ├── ExternalIdTaken            409 external-id-taken            (decided)
    ├── HoldNotOpen                409 hold-not-open                (decided)
    ├── HoldExpired                409 hold-expired                 (decided)
    ├── NotReversible              409 not-reversible               (decided)
    ├── AlreadyReversed            409 already-reversed             (decided)
    ├── VersionConflict            409 version-conflict             (+ Retry-After)
    ├── WalletBusy                 409 wallet-busy                  (+ Retry-After)
    ├── IdempotencyKeyInFlight     409 idempotency-key-in-flight    (+ Retry-After)
    ├── VersionMismatch            412 version-mismatch
    ├── IfMatchRequired            428 if-match-required
    ├── InsufficientFunds          422 insufficient-funds           (decided)
    ├── BalanceLimitExceeded       422 balance-limit-exceeded       (decided)
    ├── LimitExceeded              422 limit-exceeded               (decided)
    ├── CurrencyMismatch           422 currency-mismatch            (decided)
    ├── SameWallet                 422 same-wallet                  (decided)
    ├── CaptureExceedsHold         422 capture-exceeds-hold         (decided)
    ├── ReversalExceedsOriginal    422 reversal-exceeds-original    (decided)
    ├── ReceiverUnavailable        422 receiver-unavailable         (decided)
    └── IdempotencyKeyReused       422 idempotency-key-reused

A decided problem is stored under the request's idempotency key: a repeated request gets the same reply.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from common.moments import timestamp
from common.problems import Problem


class IdempotencyKeyRequired(Problem):
    """This server requires an idempotency key or an external id with each POST and PUT.

    (IETF draft-ietf-httpapi-idempotency-key-header, section 2.7.)
    """

    status = 400
    code = "idempotency-key-required"
    title = "Idempotency key required"


class WalletNotFound(Problem):
    """The wallet does not exist."""

    status = 404
    code = "wallet-not-found"
    title = "Wallet not found"

    def __init__(self, wallet_id: UUID, field: str = "wallet_id") -> None:
        super().__init__(
            f"{field}: wallet {wallet_id} does not exist. Check the id.",
            extensions={"wallet_id": str(wallet_id)},
        )


class HoldNotFound(Problem):
    """The hold does not exist."""

    status = 404
    code = "hold-not-found"
    title = "Hold not found"

    def __init__(self, hold_id: UUID) -> None:
        super().__init__(f"hold_id: hold {hold_id} does not exist. Check the id.", extensions={"hold_id": str(hold_id)})


class TransactionNotFound(Problem):
    """The transaction does not exist, or none of its wallets is the caller's."""

    status = 404
    code = "transaction-not-found"
    title = "Transaction not found"

    def __init__(self, transaction_id: UUID) -> None:
        super().__init__(
            f"transaction_id: transaction {transaction_id} does not exist. Check the id.",
            extensions={"transaction_id": str(transaction_id)},
        )


class NotAcceptable(Problem):
    """The reply has none of the media types of `Accept` (RFC 9110, section 15.5.7)."""

    status = 406
    code = "not-acceptable"
    title = "Not acceptable"

    def __init__(self, offered: Sequence[str]) -> None:
        super().__init__(f"Accept: name one of {', '.join(offered)}.", extensions={"offered": list(offered)})


class WalletFrozen(Problem):
    """The wallet refuses money in this direction until it is unfrozen; `blocks` says what it refuses."""

    status = 409
    code = "wallet-frozen"
    title = "Wallet frozen"
    decided = True


class WalletClosed(Problem):
    """The wallet takes part in no movement until it is reopened."""

    status = 409
    code = "wallet-closed"
    title = "Wallet closed"
    decided = True


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


class ExternalIdTaken(Problem):
    """The user has a wallet with this external id, or the wallet a transaction: `wallet_id` or `transaction_id`."""

    status = 409
    code = "external-id-taken"
    title = "External id taken"
    decided = True

    @classmethod
    def by_wallet(cls, user_id: str, external_id: str | None, wallet_id: UUID | None) -> "ExternalIdTaken":
        """Return the refusal of a wallet."""
        return cls(
            f"external_id: user {user_id} already has wallet {wallet_id} with {external_id}."
            " Use that wallet, or send another external_id.",
            extensions={"wallet_id": str(wallet_id)},
        )

    @classmethod
    def by_transaction(cls, wallet_id: UUID, external_id: str, transaction_id: UUID) -> "ExternalIdTaken":
        """Return the refusal of an operation."""
        return cls(
            f"external_id: wallet {wallet_id} already has transaction {transaction_id} with {external_id}."
            " Read that transaction, or send another external_id.",
            extensions={"transaction_id": str(transaction_id)},
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


class VersionConflict(Problem):
    """Other requests changed the wallet during each attempt of this request."""

    status = 409
    code = "version-conflict"
    title = "Version conflict"
    retry_after_seconds = 1

    def __init__(self, wallet_id: UUID) -> None:
        super().__init__(
            f"wallet_id: wallet {wallet_id} changed during each attempt. Retry with the same idempotency key."
        )


class WalletBusy(Problem):
    """Another transaction has locked the wallet for longer than this request is retried."""

    status = 409
    code = "wallet-busy"
    title = "Wallet busy"
    retry_after_seconds = 1

    def __init__(self) -> None:
        super().__init__("Another transaction has locked the wallet. Retry with the same idempotency key.")


class IdempotencyKeyInFlight(Problem):
    """The first request with this key has no reply yet."""

    status = 409
    code = "idempotency-key-in-flight"
    title = "Idempotency key in flight"
    retry_after_seconds = 1

    def __init__(self) -> None:
        super().__init__("Idempotency-Key: the first request with this key has no reply yet. Retry with the same key.")


class VersionMismatch(Problem):
    """The wallet isn't at the version that `If-Match` names; `version` is the one at which it is."""

    status = 412
    code = "version-mismatch"
    title = "Version mismatch"


class IfMatchRequired(Problem):
    """The request replaces the wallet's limits, and does not say which version it has seen (RFC 6585, section 3)."""

    status = 428
    code = "if-match-required"
    title = "If-Match required"

    def __init__(self) -> None:
        super().__init__("If-Match: read the wallet's limits, and send the ETag, so that no other change is lost.")


class InsufficientFunds(Problem):
    """Less is available than the amount: `available` is the balance without what is held, and with the overdraft limit.

    `needed` is what the request takes from it.
    """

    status = 422
    code = "insufficient-funds"
    title = "Insufficient funds"
    decided = True


class BalanceLimitExceeded(Problem):
    """The balance would be more than the wallet may have: `balance_max`; `remaining` is what it may still receive."""

    status = 422
    code = "balance-limit-exceeded"
    title = "Balance limit exceeded"
    decided = True


class LimitExceeded(Problem):
    """A velocity limit refuses the movement.

    `limit_id` names it, and `window` is for how long it counts. `used` and `used_count` are what has moved in the
    window, `remaining` and `remaining_count` what may still move until `resets_at`. Null: it does not limit that.
    """

    status = 422
    code = "limit-exceeded"
    title = "Limit exceeded"
    decided = True


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


class IdempotencyKeyReused(Problem):
    """The key belongs to another request."""

    status = 422
    code = "idempotency-key-reused"
    title = "Idempotency key reused"
