"""What went wrong at the command line: one line that says what it was and the way out, and the exit code.

The codes of PostgreSQL are those of its manual, appendix A.
"""

import errno
import sys
from pathlib import Path
from typing import Final

from walletctl.console import Exit

_HERE: Final = {
    errno.ENOSPC: "make room, and run it again",
    errno.EDQUOT: "make room, and run it again",
    errno.EFBIG: "raise the limit of a file's size, and run it again",
    errno.EACCES: "run it as a user who may",
    errno.EPERM: "run it as a user who may",
    errno.EROFS: "name a place that can be written to",
    errno.ENOENT: "name one that is there",
    errno.ENOTDIR: "name a directory",
    errno.EISDIR: "name a file",
    errno.EEXIST: "name another, or remove it",
    errno.ENOTEMPTY: "name another, or empty it",
    errno.EMFILE: "raise ulimit -n",
    errno.ENFILE: "raise the system's limit of open files",
    errno.ENOMEM: "end what else needs memory",
    errno.ELOOP: "name a path without so many links",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EIO: "look at the disk or the terminal",
    errno.EADDRINUSE: "name another port",
    errno.EADDRNOTAVAIL: "name an address of this machine",
}
"""Errors of this machine, by number, and what to do. Any other OSError is about a connection."""

_BUSY: Final = "something else keeps the server busy: run it again later, and look at pg_stat_activity if it goes on"
_WRONG_URL: Final = ("28", "3D000", "42501")
"""What refuses here for the URL's sake: SQLSTATEs or their classes. All else that refuses may pass."""

_STATES: Final[dict[str, tuple[str, Exit]]] = {
    "42704": ("a role or another object that was named isn't there: create it", Exit.USAGE),
    "53100": ("PostgreSQL's disk is full: make room there", Exit.UNREACHABLE),
    "53300": ("PostgreSQL has no connection left: end some, or raise max_connections", Exit.UNREACHABLE),
    "57014": (_BUSY, Exit.UNREACHABLE),
    "55P03": (_BUSY, Exit.UNREACHABLE),
    "40P01": (_BUSY, Exit.UNREACHABLE),
    "40001": (_BUSY, Exit.UNREACHABLE),
}
"""The others, and what to do. What a refusing database says for all is in `common.postgres.errors`."""


def explain(error: Exception) -> tuple[str, Exit] | None:
    """Return the line and the exit code, or None for what is a defect: that keeps its traceback."""
    from common.postgres.errors import sqlstate

    if isinstance(error, ExceptionGroup):
        # Of tasks that ran side by side: each may have met the same.
        explained = [explain(one) for one in error.exceptions]
        return None if None in explained else explained[0]
    if isinstance(error, OSError) and (line := _local(error)):
        return line, Exit.USAGE
    if (state := sqlstate(error)) is not None:
        return _refused(error, state)
    if (line := _about_what_was_given(error)) is not None:
        return line, Exit.USAGE
    return _of_kafka(error) or _away(error)


def _away(error: Exception) -> tuple[str, Exit] | None:
    from common.postgres.errors import is_unreachable, message_of

    if not is_unreachable(error):
        return None
    asked = "is it up, and do DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS name it?"
    return f"a server is away: {message_of(error)} ({asked})", Exit.UNREACHABLE


def _local(error: OSError) -> str | None:
    """Return the line for an error of this machine, or None for one of a connection."""
    way_out = _HERE.get(error.errno or 0)
    if way_out is None:
        return None
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    if error.errno in {errno.ENOENT, errno.EACCES} and not names:
        # A server's socket, as `postgresql:///wallet?host=/run/postgresql` names it, or the working directory.
        if _is_working_directory_there():
            return None
        return "the working directory is gone (cd to one that is there)"
    return f"{names}: {error.strerror} ({way_out})" if names else f"{error.strerror} ({way_out})"


def _is_working_directory_there() -> bool:
    try:
        return Path.cwd().exists()
    except OSError:
        return False


def _refused(error: Exception, state: str) -> tuple[str, Exit]:
    from common.postgres.errors import is_unreachable, message_of, message_with_remedy, remedy_for

    if remedy_for(error):
        return f"PostgreSQL refuses: {message_with_remedy(error)}", Exit.USAGE if state.startswith(
            _WRONG_URL
        ) else Exit.UNREACHABLE
    if state in _STATES:
        then, code = _STATES[state]
        return f"PostgreSQL refuses: {message_of(error)} ({then})", code
    if is_unreachable(error):
        return f"PostgreSQL is away or going down: {message_of(error)} (run it again when it is up)", Exit.UNREACHABLE
    return f"PostgreSQL refuses: {message_of(error)} (SQLSTATE {state})", Exit.USAGE


def _of_kafka(error: Exception) -> tuple[str, Exit] | None:
    # Whoever raised one has imported it.
    kafka = sys.modules.get("confluent_kafka")
    if kafka is None or not isinstance(error, kafka.KafkaException):
        return None
    said = error.args[0]
    text = said.str() if hasattr(said, "str") else str(error)
    if "authorization" in text.lower() or "authentication" in text.lower():
        return f"Kafka refuses: {text} (let the ACLs allow it)", Exit.USAGE
    return f"Kafka is away: {text} (is it up, and does KAFKA_BOOTSTRAP_SERVERS name it?)", Exit.UNREACHABLE


def _about_what_was_given(error: Exception) -> str | None:
    """Return the line for what a library refused before it sent anything: a value, a URL, a revision."""
    from asyncpg.exceptions import ClientConfigurationError, DataError

    from common.postgres.errors import message_of

    cause = getattr(error, "orig", None)
    refused = getattr(cause, "__cause__", cause) or error
    if isinstance(refused, DataError):
        return f"PostgreSQL can't take a value: {message_of(error)}"
    if isinstance(refused, ClientConfigurationError):
        return (
            f"bad configuration: DATABASE_URL or HISTORY_DATABASE_URL: {message_of(error)} (set it in the environment)"
        )
    alembic = sys.modules.get("alembic.util")
    if alembic is not None and isinstance(error, alembic.CommandError):
        return (
            f"{message_of(error)}: the tables are of another version (run the walletctl that made them, or a newer one)"
        )
    return None
