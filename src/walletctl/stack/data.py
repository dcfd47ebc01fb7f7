"""The files of a stack: what may be deleted, and by whom they were made."""

import os
import shutil
from pathlib import Path

from walletctl.stack.errors import AlreadyRunningError, StackError, UnusablePathError, option
from walletctl.stack.state import LOCK_FILE, STATE_FILE, StackState, lock_holder, stack_lock

SERVERS_DATA = ("postgres", "postgres.new", "kafka")
LOGS = "logs"
PATH_BYTES_MAX = 900
"""PostgreSQL cuts a path at 1,023 bytes, those of the files below included."""


def check_name(data_dir: Path) -> None:
    """Refuse a name that can't be printed, written down in a line, or passed to PostgreSQL (MAXPGPATH).

    Raises:
        UnusablePathError: says why.
    """
    if not str(data_dir).isprintable():
        raise UnusablePathError(data_dir, "has a line break or another character that can't be printed")
    if len(os.fsencode(data_dir)) > PATH_BYTES_MAX:
        raise UnusablePathError(data_dir, f"is longer than {PATH_BYTES_MAX} bytes")


def check_usable(data_dir: Path, last: StackState | None, *, ephemeral: bool) -> None:
    """Refuse to touch data that isn't a stack's, or to delete what another run was told to keep.

    Raises:
        StackError: says which, and the way out.
    """
    present = [name for name in SERVERS_DATA if (data_dir / name).exists()]
    if present and last is None:
        raise StackError(f"{data_dir / present[0]} was not made by a stack: name another --data-dir")
    if present and last and ephemeral and not last.ephemeral:
        raise StackError(
            f"{data_dir} holds the data of a stack that isn't ephemeral: name another --data-dir,"
            f" or delete it: walletctl stack reset {option(data_dir)}"
        )


def owned_by_a_stack(data_dir: Path) -> list[str]:
    """Return the names of what a stack made there; none if no stack was ever started there."""
    if not (data_dir / STATE_FILE).exists():
        return []
    owned = (*SERVERS_DATA, LOGS, STATE_FILE, LOCK_FILE)
    return [name for name in owned if (data_dir / name).exists()]


def delete_servers_data(data_dir: Path) -> None:
    """Delete what PostgreSQL and Kafka keep."""
    for name in SERVERS_DATA:
        _delete(data_dir / name)


def delete_all(data_dir: Path) -> None:
    """Delete everything that a stack makes in its data directory, and nothing else."""
    delete_servers_data(data_dir)
    _delete(data_dir / LOGS)
    # Last, because these two say that the rest was a stack's.
    _delete(data_dir / STATE_FILE)
    _delete(data_dir / LOCK_FILE)


def reset(data_dir: Path) -> None:
    """Delete the data of a stack that doesn't run.

    Raises:
        AlreadyRunningError: it runs.
    """
    if holder := lock_holder(data_dir):
        raise AlreadyRunningError(data_dir, holder)
    with stack_lock(data_dir):
        delete_all(data_dir)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
