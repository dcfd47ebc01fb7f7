"""The retry policy of one command of a batch."""

import random
from dataclasses import dataclass
from typing import Final

from common.pauses import Pauses
from wallet_api.errors import BUSY, VersionConflict

_VERSION_PAUSES: Final = Pauses(0.002, 0.05)
_BUSY_PAUSE_SECONDS: Final = 0.03


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
