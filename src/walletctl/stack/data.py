"""The files of a stack: which ones it owns, and which may be deleted."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from walletctl.stack.errors import AlreadyRunningError, SetupError, UnusablePathError, option
from walletctl.stack.state import LOCK_FILE, STATE_FILE, StackState, lock_holder, stack_lock

SERVERS_DATA = ("postgres", "postgres.new", "postgres.password", "kafka")
LOGS = "logs"
KEY_FILE = "api-key"
"""The API key of the stack's own tools. Only its owner can read it."""
PATH_BYTES_MAX = 900
"""PostgreSQL cuts off a path, with the file's name, at 1,023 bytes."""


def check_name(data_dir: Path) -> None:
    """Refuse a path that can't be printed on one line, or is too long for PostgreSQL (MAXPGPATH).

    Raises:
        UnusablePathError: the path can't be used.
    """
    if not str(data_dir).isprintable():
        raise UnusablePathError(data_dir, "contains a line break or another character that can't be printed")
    if len(os.fsencode(data_dir)) > PATH_BYTES_MAX:
        raise UnusablePathError(data_dir, f"is longer than {PATH_BYTES_MAX} bytes")


def check_usable(data_dir: Path, last: StackState | None, *, ephemeral: bool) -> None:
    """Refuse data that no stack made, and an ephemeral run on data that a former run keeps.

    Raises:
        SetupError: the directory can't be used; the message names the way out.
    """
    present = [name for name in SERVERS_DATA if (data_dir / name).exists()]
    if present and last is None:
        raise SetupError(f"{data_dir / present[0]} was not made by a stack. Name another --data-dir")
    if present and last and ephemeral and not last.ephemeral:
        raise SetupError(
            f"{data_dir} holds the data of a stack that isn't ephemeral. Name another --data-dir,"
            f" or delete the data: walletctl stack reset {option(data_dir)}"
        )


def owned_by_a_stack(data_dir: Path) -> list[str]:
    """Return the names of the files that a stack made there; none if no stack was started there."""
    if not (data_dir / STATE_FILE).exists():
        return []
    owned = (*SERVERS_DATA, KEY_FILE, LOGS, STATE_FILE, LOCK_FILE)
    return [name for name in owned if (data_dir / name).exists()]


def delete_servers_data(data_dir: Path) -> None:
    """Delete the data of PostgreSQL and Kafka, and the API key that PostgreSQL knows."""
    for name in (*SERVERS_DATA, KEY_FILE):
        _delete(data_dir / name)


def delete_all(data_dir: Path) -> None:
    """Delete every file that a stack makes in its data directory, and no other."""
    delete_servers_data(data_dir)
    _delete(data_dir / LOGS)
    # Deleted last: these two show that the other files are a stack's.
    _delete(data_dir / STATE_FILE)
    _delete(data_dir / LOCK_FILE)


def reset(data_dir: Path) -> None:
    """Delete the data of a stopped stack, and the directory if nothing else is in it.

    Raises:
        AlreadyRunningError: the stack runs.
    """
    if holder := lock_holder(data_dir):
        raise AlreadyRunningError(data_dir, holder)
    with stack_lock(data_dir):
        delete_all(data_dir)
    # Not empty, or a mount point: it stays.
    with suppress(OSError):
        data_dir.rmdir()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
