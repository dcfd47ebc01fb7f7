"""The two retry policies: of a consumer's transaction, and of an operator's.

Both are for transactions that the database rolled back. A server that is away is asked again by
`common.worker.repeat`, without an end.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from common.pauses import Pauses
from common.postgres.errors import LOCK_NOT_AVAILABLE, may_succeed_again, sqlstate
from history_consumer import metrics
from history_consumer.consumer.row_writes import ExistingRowsError

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class TransactionRetries:
    """How often a transaction is run again, as a whole, and after which pauses.

    It is run again after a deadlock, a serialization failure, a stale plan, and rows that it took for new.

    Args:
        attempts_max: with the first one.
        pauses: between attempts; each pause is a random part of these.
        sqlstates: further errors after which it is run again.
    """

    attempts_max: int
    pauses: Pauses
    sqlstates: frozenset[str] = frozenset()

    async def run(self, transaction: Callable[[int], Awaitable[ResultT]]) -> ResultT:
        """Run the transaction until it succeeds or may not be run again; return its result.

        Args:
            transaction: takes the number of the attempt, from 1.
        """
        attempt = 1
        while True:
            try:
                return await transaction(attempt)
            except Exception as error:
                if attempt == self.attempts_max or not self._may_run_again(error):
                    raise
                if not isinstance(error, ExistingRowsError):
                    metrics.transaction_retries.labels(sqlstate(error)).inc()
            await asyncio.sleep(random.uniform(0, self.pauses.after(attempt)))  # noqa: S311 - jitter
            attempt += 1

    def _may_run_again(self, error: Exception) -> bool:
        return isinstance(error, ExistingRowsError) or may_succeed_again(error) or sqlstate(error) in self.sqlstates


CONSUMER_RETRIES: Final = TransactionRetries(8, Pauses(0.01, 0.5))
"""Of a batch: a consumer that pauses longer than this falls behind."""
OPERATOR_RETRIES: Final = TransactionRetries(10, Pauses(0.05, 1.0), frozenset({LOCK_NOT_AVAILABLE}))
"""Of an operator's command, which runs beside the consumers and waits for their locks."""
