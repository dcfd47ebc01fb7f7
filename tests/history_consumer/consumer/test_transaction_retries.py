"""A transaction that the database rolled back is run again as a whole, a bounded number of times."""

from dataclasses import dataclass

import pytest

from common.pauses import Pauses
from common.postgres.errors import DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, UNIQUE_VIOLATION
from history_consumer.consumer.row_writes import ExistingRowsError
from history_consumer.consumer.transaction_retries import TransactionRetries

RETRIES = TransactionRetries(3, Pauses(0.001, 0.001))


class PostgresError(Exception):
    """Stands in for an error of asyncpg."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


@dataclass
class Transaction:
    """Fails with these errors, one an attempt, and then succeeds."""

    errors: list[Exception]
    attempts: int = 0

    async def __call__(self, attempt: int) -> int:
        self.attempts += 1
        assert attempt == self.attempts
        if attempt <= len(self.errors):
            raise self.errors[attempt - 1]
        return attempt


async def test_a_transaction_is_run_again_after_a_deadlock_and_after_rows_that_existed() -> None:
    assert await RETRIES.run(Transaction([PostgresError(DEADLOCK_DETECTED), ExistingRowsError()])) == 3


async def test_the_last_attempts_error_is_raised() -> None:
    transaction = Transaction([ExistingRowsError()] * 3)
    with pytest.raises(ExistingRowsError):
        await RETRIES.run(transaction)
    assert transaction.attempts == 3


@pytest.mark.parametrize("sqlstate", [UNIQUE_VIOLATION, LOCK_NOT_AVAILABLE])
async def test_another_error_is_raised_at_once(sqlstate: str) -> None:
    transaction = Transaction([PostgresError(sqlstate)])
    with pytest.raises(PostgresError):
        await RETRIES.run(transaction)
    assert transaction.attempts == 1


async def test_a_policy_may_have_further_errors_after_which_it_runs_again() -> None:
    retries = TransactionRetries(3, Pauses(0.001, 0.001), frozenset({LOCK_NOT_AVAILABLE}))
    assert await retries.run(Transaction([PostgresError(LOCK_NOT_AVAILABLE)])) == 2
