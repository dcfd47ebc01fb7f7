"""The errors of the local stack.

StackError
├── SetupError            arguments, settings or this machine must be corrected first
│   ├── UnusablePathError     the data directory's path can't be used
│   └── MissingPackageError   the extra `local` isn't installed
├── RefusedError          a server answers and refuses the stack
├── AlreadyRunningError   a stack runs on this data directory
└── NotRunningError       no stack runs on this data directory
"""

import shlex
from pathlib import Path

from walletctl.console import Exit


class StackError(Exception):
    """A command of the stack failed; the message is one line.

    Args:
        message: the cause and the way out.
        log_file: the log of the process that failed, if it has one.
    """

    def __init__(self, message: str, log_file: Path | None = None) -> None:
        super().__init__(message)
        self.log_file = log_file


class SetupError(StackError):
    """Arguments, settings or this machine must be corrected first: the command would fail again."""


class UnusablePathError(SetupError):
    """The data directory's path can't be used by every server."""

    def __init__(self, data_dir: Path, reason: str) -> None:
        super().__init__(f"--data-dir {str(data_dir)!a} {reason}: name another")


class RefusedError(StackError):
    """A server answers and refuses the stack: waiting doesn't help."""


class MissingPackageError(SetupError):
    """A package of the extra `local` is missing."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} isn't installed. Install the extra: pip install 'wallet-outbox[local]'")


class AlreadyRunningError(StackError):
    """A supervisor holds the data directory."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        holder = f"pid {pid}" if pid else "another process"
        super().__init__(
            f"a stack already runs on {data_dir} ({holder}). Stop it: walletctl stack down {option(data_dir)}"
        )


class NotRunningError(StackError):
    """No supervisor holds the data directory."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(f"no stack runs on {data_dir}. Start one: walletctl stack up --detach {option(data_dir)}")


def failure(exit_code: int | None) -> type[StackError]:
    """Return the class of error for a command of walletctl that ended with this exit code; None: it has not ended."""
    return SetupError if exit_code == Exit.USAGE else StackError


def option(data_dir: Path) -> str:
    """Return the option that names a stack, quoted for a shell."""
    return f"--data-dir {shlex.quote(str(data_dir))}"
