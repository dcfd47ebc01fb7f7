"""Which problem the client of a request gets for an exception that is no problem."""

import asyncpg
import pytest

from common.http.problem_responses import unexpected_problem


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(), 503),
        (asyncpg.QueryCanceledError("no"), 503),
        (asyncpg.LockNotAvailableError("no"), 503),
        (asyncpg.DeadlockDetectedError("no"), 503),
        # A read on a standby that conflicts with recovery (PostgreSQL manual, section 26.4.2).
        (asyncpg.SerializationError("no"), 503),
        (asyncpg.DivisionByZeroError("no"), 500),
        (ValueError(), 500),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_database_that_is_away_or_busy_is_503_and_a_defect_is_500(error: Exception, status: int) -> None:
    assert unexpected_problem(error, "/wallets").status == status
