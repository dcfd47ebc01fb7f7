"""The problems for which the wallet API refuses a request. `operations/errors.py` has those of single operations.

    Problem
    ├── IdempotencyKeyRequired     400 idempotency-key-required
    ├── WalletNotFound             404 wallet-not-found
    ├── HoldNotFound               404 hold-not-found
    ├── TransactionNotFound        404 transaction-not-found
    ├── NotAcceptable              406 not-acceptable
    ├── WalletFrozen               409 wallet-frozen                (decided)
    ├── WalletClosed               409 wallet-closed                (decided)
    ├── ExternalIdTaken            409 external-id-taken            (decided)
    ├── VersionConflict            409 version-conflict             (+ Retry-After)
    ├── WalletBusy                 409 wallet-busy                  (+ Retry-After)
    ├── IdempotencyKeyInFlight     409 idempotency-key-in-flight    (+ Retry-After)
    ├── IfMatchRequired            428 if-match-required
    ├── InsufficientFunds          422 insufficient-funds           (decided)
    ├── BalanceLimitExceeded       422 balance-limit-exceeded       (decided)
    ├── LimitExceeded              422 limit-exceeded               (decided)
    └── IdempotencyKeyReused       422 idempotency-key-reused

A decided problem is stored under the request's idempotency key: a repeated request gets the same reply.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

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
    def by_transaction(cls, wallet_id: UUID, external_id: str, transaction_id: UUID | None) -> "ExternalIdTaken":
        """Return the refusal of an operation; None is a transaction that a preview tells of, and that is never made."""
        if transaction_id is None:
            return cls(
                f"external_id: an operation before this one takes {external_id} of wallet {wallet_id}."
                " Send another external_id.",
                extensions={"transaction_id": None},
            )
        return cls(
            f"external_id: wallet {wallet_id} already has transaction {transaction_id} with {external_id}."
            " Read that transaction, or send another external_id.",
            extensions={"transaction_id": str(transaction_id)},
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


class IdempotencyKeyReused(Problem):
    """The key belongs to another request."""

    status = 422
    code = "idempotency-key-reused"
    title = "Idempotency key reused"


BUSY: Final = frozenset({WalletBusy.code, IdempotencyKeyInFlight.code})
"""The outcomes of commands whose wallet or key another transaction has locked."""
