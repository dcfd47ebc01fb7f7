"""Classes of PostgreSQL's errors, and the remedies that an operator has for them."""

from collections.abc import Mapping
from typing import Final

import asyncpg
from asyncpg.exceptions import InvalidCachedStatementError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from common.postgres.connections import UnsuitableDatabaseError
from common.problems import Unavailable

SERIALIZATION_FAILURE: Final = "40001"
DEADLOCK_DETECTED: Final = "40P01"
LOCK_NOT_AVAILABLE: Final = "55P03"
UNIQUE_VIOLATION: Final = "23505"
QUERY_CANCELED: Final = "57014"
TOO_MANY_CONNECTIONS: Final = "53300"
INSUFFICIENT_PRIVILEGE: Final = "42501"

READ_ONLY: Final = "25006"

_OLD_TABLES: Final = "tables are missing or old: run walletctl db migrate"
# PostgreSQL manual, appendix A. Class 08: connection exception; 53: insufficient resources; 57P: operator intervention.
# 25P03 and 25P04: the server ended a session that idled in a transaction, or whose transaction took too long.
_AWAY: Final = ("08", "53", "57P", "25P03", "25P04")
_REMEDIES: Final[Mapping[str, str]] = {
    READ_ONLY: "the database is read-only: name the primary in the URL, or turn off default_transaction_read_only",
    "28": "the login is refused: correct the role or the password of the URL, or see LOGIN and pg_hba.conf",
    "3D000": "create that database, or name another one in the URL",
    INSUFFICIENT_PRIVILEGE: "a privilege is missing: grant it to the role of the URL, or name a role of docs/roles.md",
    "3F000": _OLD_TABLES,
    "42P01": _OLD_TABLES,
    "42703": _OLD_TABLES,
    "42883": _OLD_TABLES,
}
"""By the beginning of the SQLSTATE: what an operator does about a database that refuses every statement."""
_REFUSED: Final = tuple(_REMEDIES)

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The errors of asyncpg. It raises InternalClientError for a connection that is closing."""


def sqlstate(error: BaseException) -> str | None:
    """Return the five-character SQLSTATE behind a SQLAlchemy or asyncpg error, or None."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None)
    return state if isinstance(state, str) else None


def is_unreachable(error: BaseException) -> bool:
    """Whether the database is away, at capacity or refuses every statement: only a later retry can succeed."""
    if isinstance(error, OSError | TimeoutError | PoolTimeoutError):
        return True
    state = sqlstate(error)
    if state is not None:
        return state.startswith(_AWAY + _REFUSED)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    away = InterfaceError | OperationalError | asyncpg.InterfaceError | asyncpg.InternalClientError
    return isinstance(error, away)


def is_refused_by_server(error: BaseException) -> bool:
    """Whether the database answers and refuses every statement, until an operator applies the remedy."""
    return isinstance(error, UnsuitableDatabaseError) or (sqlstate(error) or "").startswith(_REFUSED)


def is_sequence_behind(error: BaseException) -> bool:
    """Whether the sequence of the outbox ids gave an id that a row has already, until a relay raises the sequence."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "constraint_name", None) == "outbox_pkey"


def unavailable(error: BaseException) -> Unavailable:
    """Return the problem for an error that `is_temporary` or `is_sequence_behind`, if nothing was done."""
    why = "did not answer in time"
    if is_refused_by_server(error):
        why = "refuses the service; /ready gives the reason"
    elif is_sequence_behind(error):
        why = "numbers new events below those that are there, until a relay has put the sequence right"
    return Unavailable(f"The database {why}. Nothing was done. Retry.")


def may_succeed_again(error: BaseException) -> bool:
    """Whether a retry of the whole transaction may succeed: after a deadlock, a serialization failure or a stale plan.

    A migration makes plans stale (InvalidCachedStatementError). The driver has dropped its cache before the retry.
    """
    if sqlstate(error) in {SERIALIZATION_FAILURE, DEADLOCK_DETECTED}:
        return True
    cause = getattr(error.orig, "__cause__", None) if isinstance(error, DBAPIError) else error
    return isinstance(cause, InvalidCachedStatementError)


def is_temporary(error: BaseException) -> bool:
    """Whether a later retry of a worker's step or of a request may succeed.

    A database that is away, an operator's cancel, a migration's lock and a deadlock are no reason for a worker to end,
    and no defect of an API.
    """
    return is_unreachable(error) or may_succeed_again(error) or sqlstate(error) in {QUERY_CANCELED, LOCK_NOT_AVAILABLE}


def remedy_for(error: BaseException) -> str | None:
    """Return what an operator does about a database that refuses, or None for another error."""
    state = sqlstate(error) or ""
    return next((remedy for prefix, remedy in _REMEDIES.items() if state.startswith(prefix)), None)


def message_of(error: BaseException) -> str:
    """Return the error's message on one line."""
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    nameless = "no answer in time" if isinstance(cause, TimeoutError) else type(cause).__name__
    text = " ".join(str(cause).split()) or nameless
    # SQLAlchemy puts the class of the driver's error before its message.
    return text.split(">: ", 1)[-1] if text.startswith("<class ") else text


def message_with_remedy(error: BaseException) -> str:
    """Return the error's message on one line, with the remedy if there is one."""
    remedy = remedy_for(error)
    return f"{message_of(error)} ({remedy})" if remedy else message_of(error)
