"""What a money request can be refused for.

    Problem
    ├── WalletNotFound             404 wallet-not-found
    ├── WalletFrozen               409 wallet-frozen                (decided)
    ├── WalletClosed               409 wallet-closed                (decided)
    ├── ExternalIdTaken            409 external-id-taken            (decided)
    ├── VersionConflict            409 version-conflict             (+ Retry-After)
    ├── WalletBusy                 409 wallet-busy                  (+ Retry-After)
    ├── IdempotencyKeyInFlight     409 idempotency-key-in-flight    (+ Retry-After)
    ├── VersionMismatch            412 version-mismatch
    ├── InsufficientFunds          422 insufficient-funds           (decided)
    ├── BalanceLimitExceeded       422 balance-limit-exceeded       (decided)
    ├── CurrencyMismatch           422 currency-mismatch            (decided)
    ├── SameWallet                 422 same-wallet                  (decided)
    ├── IdempotencyKeyReused       422 idempotency-key-reused
    └── IdempotencyKeyRequired     422 idempotency-key-required

A decided one is stored under the request's idempotency key: asking again gets the same answer.
"""

from uuid import UUID

from common.problems import Problem


class WalletNotFound(Problem):
    """No such wallet."""

    status = 404
    code = "wallet-not-found"
    title = "There is no such wallet"

    def __init__(self, wallet_id: UUID, field: str = "wallet_id") -> None:
        super().__init__(f"{field}: there is no wallet {wallet_id}.", extensions={"wallet_id": str(wallet_id)})


class WalletFrozen(Problem):
    """The wallet takes part in nothing until it is released."""

    status = 409
    code = "wallet-frozen"
    title = "The wallet is frozen"
    decided = True


class WalletClosed(Problem):
    """The wallet takes part in nothing any more."""

    status = 409
    code = "wallet-closed"
    title = "The wallet is closed"
    decided = True


class ExternalIdTaken(Problem):
    """The user has a wallet of this external id."""

    status = 409
    code = "external-id-taken"
    title = "The user already has a wallet with this external_id"
    decided = True


class VersionConflict(Problem):
    """Others changed the wallet each time this request tried to."""

    status = 409
    code = "version-conflict"
    title = "The wallet changed in between, too often"
    retry_after_seconds = 1

    def __init__(self, wallet_id: UUID) -> None:
        super().__init__(f"Wallet {wallet_id} changed during each attempt. Retry with the same idempotency key.")


class WalletBusy(Problem):
    """Others held the wallet's lock for too long."""

    status = 409
    code = "wallet-busy"
    title = "The wallet is locked by other requests"
    retry_after_seconds = 1

    def __init__(self) -> None:
        super().__init__("Another transaction has locked the wallet. Retry with the same idempotency key.")


class IdempotencyKeyInFlight(Problem):
    """The first request with this key is still under way."""

    status = 409
    code = "idempotency-key-in-flight"
    title = "A request with this idempotency key is under way"
    retry_after_seconds = 1

    def __init__(self) -> None:
        super().__init__("Idempotency-Key: the first request with this key has no reply yet. Retry with the same key.")


class VersionMismatch(Problem):
    """The wallet isn't at the version that `If-Match` names."""

    status = 412
    code = "version-mismatch"
    title = "The wallet is not at the version that If-Match names"


class InsufficientFunds(Problem):
    """The sender hasn't got that much."""

    status = 422
    code = "insufficient-funds"
    title = "The wallet has not got that much"
    decided = True


class BalanceLimitExceeded(Problem):
    """The balance would be more than can be stored."""

    status = 422
    code = "balance-limit-exceeded"
    title = "The balance would be more than a wallet can hold"
    decided = True


class CurrencyMismatch(Problem):
    """The currencies differ."""

    status = 422
    code = "currency-mismatch"
    title = "The currencies differ"
    decided = True


class SameWallet(Problem):
    """A transfer needs two wallets."""

    status = 422
    code = "same-wallet"
    title = "A wallet can't transfer to itself"
    decided = True


class IdempotencyKeyReused(Problem):
    """The key belongs to another request."""

    status = 422
    code = "idempotency-key-reused"
    title = "The idempotency key was used for another request"


class IdempotencyKeyRequired(Problem):
    """This server takes no money request without a key."""

    status = 422
    code = "idempotency-key-required"
    title = "The Idempotency-Key header is required"
