"""What can go wrong with the local stack.

StackError
├── MissingPackageError   the extra `local` isn't installed
├── AlreadyRunningError   another `stack up` holds this data directory
└── NotRunningError       no stack runs on this data directory
"""

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


class MissingPackageError(StackError):
    """A package of the extra `local` is missing."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} isn't installed: install the extra, pip install 'wallet-outbox[local]'")


class AlreadyRunningError(StackError):
    """Another supervisor holds the data directory."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        holder = f"pid {pid}" if pid else "another process"
        super().__init__(
            f"a stack already runs on {data_dir} ({holder}); stop it: walletctl stack down --data-dir {data_dir}"
        )


class NotRunningError(StackError):
    """No supervisor holds the data directory."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(f"no stack runs on {data_dir}; start one: walletctl stack up --detach --data-dir {data_dir}")
