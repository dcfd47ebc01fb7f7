"""Classes of PostgreSQL's errors, and their remedies."""

import asyncpg
import pytest
from asyncpg.exceptions import InvalidCachedStatementError

from common.postgres.connections import UnsuitableDatabaseError
from common.postgres.errors import (
    is_refused_by_server,
    is_temporary,
    is_unreachable,
    may_succeed_again,
    message_of,
    message_with_remedy,
    remedy_for,
)

REFUSED = {
    "read-only": asyncpg.ReadOnlySQLTransactionError("no"),
    "login": asyncpg.InvalidPasswordError("no"),
    "create that database": asyncpg.InvalidCatalogNameError("no"),
    "privilege": asyncpg.InsufficientPrivilegeError("no"),
    "walletctl db migrate": asyncpg.UndefinedTableError("no"),
}
AWAY = [
    OSError(),
    TimeoutError(),
    asyncpg.ConnectionDoesNotExistError(),
    asyncpg.TooManyConnectionsError(),
    asyncpg.AdminShutdownError(),
    asyncpg.IdleInTransactionSessionTimeoutError(),
    asyncpg.InterfaceError(""),
    asyncpg.InternalClientError(),
]


@pytest.mark.parametrize("remedy", REFUSED)
def test_a_refusal_names_its_remedy_and_a_later_retry_may_succeed(remedy: str) -> None:
    error = REFUSED[remedy]
    assert remedy in (remedy_for(error) or "")
    assert message_with_remedy(error) == f"no ({remedy_for(error)})"
    assert is_refused_by_server(error)
    assert is_unreachable(error)
    assert is_temporary(error)


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_a_server_that_is_away_is_unreachable_and_does_not_refuse(error: Exception) -> None:
    assert is_unreachable(error)
    assert not is_refused_by_server(error)
    assert remedy_for(error) is None


def test_an_unsuitable_database_refuses() -> None:
    error = UnsuitableDatabaseError("the encoding is LATIN1")
    assert is_refused_by_server(error)
    assert message_with_remedy(error) == "the encoding is LATIN1"


@pytest.mark.parametrize(
    "error", [asyncpg.DeadlockDetectedError(), asyncpg.SerializationError(), InvalidCachedStatementError()]
)
def test_a_transaction_is_retried_after_a_deadlock_a_serialization_failure_and_a_stale_plan(error: Exception) -> None:
    assert may_succeed_again(error)
    assert not is_unreachable(error)
    assert is_temporary(error)


@pytest.mark.parametrize("error", [asyncpg.QueryCanceledError(), asyncpg.LockNotAvailableError()])
def test_a_cancelled_statement_and_a_lock_do_not_end_a_worker(error: Exception) -> None:
    assert is_temporary(error)
    assert not is_unreachable(error)


@pytest.mark.parametrize("error", [asyncpg.UniqueViolationError(), asyncpg.DataError(), ValueError()])
def test_a_defect_is_not_temporary(error: Exception) -> None:
    assert not is_temporary(error)
    assert not is_unreachable(error)
    assert not may_succeed_again(error)


def test_a_message_is_one_line_and_an_error_without_one_has_its_class() -> None:
    assert message_of(ValueError("one\n  two")) == "one two"
    assert message_of(ZeroDivisionError()) == "ZeroDivisionError"
    assert message_of(TimeoutError()) == "no answer in time"
