"""The two retry policies: of a whole transaction, and of one command of a batch."""

import random
from dataclasses import dataclass
from typing import Final

from common.pauses import Pauses
from common.postgres.errors import UNIQUE_VIOLATION, may_succeed_again, sqlstate
from wallet_api.errors import IdempotencyKeyInFlight, VersionConflict, WalletBusy

_TRANSACTION_ATTEMPTS_MAX: Final = 5
_TRANSACTION_PAUSES: Final = Pauses(0.01, 0.2)

_VERSION_PAUSES: Final = Pauses(0.002, 0.05)
_BUSY_PAUSE_SECONDS: Final = 0.03
BUSY: Final = frozenset({WalletBusy.code, IdempotencyKeyInFlight.code})
"""The outcomes of commands whose wallet or key another transaction has locked."""


def transaction_retry(error: Exception, attempts: int) -> float | None:
    """Return after how many seconds a transaction that failed is run again as a whole, or None where it isn't.

    It is run again after a deadlock, a serialization failure, a stale plan and a unique key, `attempts` of 5 times.
    """
    # A unique key: another session has written this idempotency key meanwhile, and the next attempt sees it.
    is_retried = may_succeed_again(error) or sqlstate(error) == UNIQUE_VIOLATION
    if not is_retried or attempts >= _TRANSACTION_ATTEMPTS_MAX:
        return None
    return random.uniform(0, _TRANSACTION_PAUSES.after(attempts))  # noqa: S311


@dataclass(frozen=True, slots=True)
class CommandRetry:
    """When one command of a batch is put into a later batch instead of being answered.

    Args:
        version_attempts_max: how often a command is tried if its wallet changes before the write.
        busy_seconds_max: how long a command is retried if another transaction has locked its wallet or key.
    """

    version_attempts_max: int
    busy_seconds_max: float

    def pause_seconds(self, outcome: str, version_attempts: int, age_seconds: float) -> float | None:
        """Return after how many seconds the command is put into the queue again, or None where it is answered.

        Args:
            outcome: of the reply.
            version_attempts: how often the command's wallet has changed before the write.
            age_seconds: since the command was submitted.
        """
        if outcome == VersionConflict.code and version_attempts < self.version_attempts_max:
            return random.uniform(0, _VERSION_PAUSES.after(version_attempts))  # noqa: S311
        if outcome in BUSY and age_seconds < self.busy_seconds_max:
            return _BUSY_PAUSE_SECONDS
        return None
