"""What PostgreSQL's errors mean here, and what an operator does about them."""

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

READ_ONLY: Final = "25006"

_OLD_TABLES: Final = "tables are missing or old: run walletctl db migrate"
# PostgreSQL manual, appendix A. Class 08 connection exception, 53 insufficient resources, 57P operator intervention;
# 25P03 and 25P04 are sessions that the server ended for idling or running too long.
_AWAY: Final = ("08", "53", "57P", "25P03", "25P04")
_REMEDIES: Final[Mapping[str, str]] = {
    READ_ONLY: "the database is read-only: name the primary in the URL, or end default_transaction_read_only",
    "28": "the login is refused: correct the role or the password of the URL, or see LOGIN and pg_hba.conf",
    "3D000": "create that database, or name another one in the URL",
    "42501": "a privilege is missing: grant it to the role of the URL, or use the URL of a role that has it",
    "3F000": _OLD_TABLES,
    "42P01": _OLD_TABLES,
    "42703": _OLD_TABLES,
    "42883": _OLD_TABLES,
}
"""A database that refuses, whoever asks, until an operator heals it: by the beginning of the SQLSTATE, the way out."""
_REFUSED: Final = tuple(_REMEDIES)

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises; an InternalClientError for a connection whose end it has heard of, but not seen."""


def sqlstate(error: BaseException) -> str | None:
    """Return the five-character SQLSTATE behind a SQLAlchemy or asyncpg error, or None."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None)
    return state if isinstance(state, str) else None


def is_unreachable(error: BaseException) -> bool:
    """Whether the server is away or full, or refuses whoever asks: waiting may help, another command won't."""
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
    """Whether the database answers and refuses, whoever asks: an operator has to act."""
    return isinstance(error, UnsuitableDatabaseError) or (sqlstate(error) or "").startswith(_REFUSED)


def unavailable(error: BaseException) -> Unavailable:
    """Return what a client is told of an error that `is_unreachable`, where nothing was done."""
    why = (
        "The database refuses: /ready says why."
        if is_refused_by_server(error)
        else "The database did not answer in time."
    )
    return Unavailable(f"{why} Nothing was done. Ask again.")


def may_succeed_again(error: BaseException) -> bool:
    """Whether the whole transaction may succeed when it is run again: deadlock, serialization failure, stale plan.

    A stale plan after a migration (InvalidCachedStatementError) counts: the driver has dropped its cache by then.
    """
    if sqlstate(error) in {SERIALIZATION_FAILURE, DEADLOCK_DETECTED}:
        return True
    cause = getattr(error.orig, "__cause__", None) if isinstance(error, DBAPIError) else error
    return isinstance(cause, InvalidCachedStatementError)


def is_temporary(error: BaseException) -> bool:
    """Whether a worker's step may succeed later: the database is away, or gave up this transaction and not the work.

    An operator's cancel, a lock that a migration holds and a deadlock are no reason for a worker to end.
    """
    return is_unreachable(error) or may_succeed_again(error) or sqlstate(error) in {QUERY_CANCELED, LOCK_NOT_AVAILABLE}


def remedy_for(error: BaseException) -> str | None:
    """Return what an operator does about a database that refuses, or None where it is another error."""
    state = sqlstate(error) or ""
    return next((remedy for prefix, remedy in _REMEDIES.items() if state.startswith(prefix)), None)


def message_of(error: BaseException) -> str:
    """Return what an error says, on one line."""
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    # SQLAlchemy puts the class of the driver's error before what it says.
    return text.split(">: ", 1)[-1] if text.startswith("<class ") else text


def message_with_remedy(error: BaseException) -> str:
    """Return what an error says on one line, and the way out where there is one."""
    remedy = remedy_for(error)
    return f"{message_of(error)} ({remedy})" if remedy else message_of(error)
