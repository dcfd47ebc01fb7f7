"""What can go wrong with the local stack.

StackError
├── UnusablePathError     no server's files can lie there
├── RefusedError          a server answers, and refuses the stack
├── MissingPackageError   the extra `local` isn't installed
├── AlreadyRunningError   another `stack up` holds this data directory
└── NotRunningError       no stack runs on this data directory
"""

import shlex
from pathlib import Path


class StackError(Exception):
    """The stack can't do what was asked; the message is one line for its reader.

    Args:
        message: what went wrong and what to do about it.
        log_file: where the process that failed wrote why, if it did.
    """

    def __init__(self, message: str, log_file: Path | None = None) -> None:
        super().__init__(message)
        self.log_file = log_file


class UnusablePathError(StackError):
    """The data directory has a name that not everything which reads it can take."""

    def __init__(self, data_dir: Path, reason: str) -> None:
        super().__init__(f"--data-dir {str(data_dir)!a} {reason}: name another")


class RefusedError(StackError):
    """A server answers, and no waiting will change its answer."""


class MissingPackageError(StackError):
    """A package of the extra `local` is missing."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} isn't installed: install the extra, pip install 'wallet-outbox[local]'")


class AlreadyRunningError(StackError):
    """Another supervisor holds the data directory."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        holder = f"pid {pid}" if pid else "another process"
        super().__init__(
            f"a stack already runs on {data_dir} ({holder}); stop it: walletctl stack down {option(data_dir)}"
        )


class NotRunningError(StackError):
    """No supervisor holds the data directory."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(f"no stack runs on {data_dir}; start one: walletctl stack up --detach {option(data_dir)}")


def option(data_dir: Path) -> str:
    """Return the option that names a stack, quoted for a shell."""
    return f"--data-dir {shlex.quote(str(data_dir))}"
