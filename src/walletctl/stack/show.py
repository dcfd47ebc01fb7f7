"""Shows a stack on a terminal, and in the log of a detached one."""

import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.markup import escape

from walletctl.console import err, out, print_table
from walletctl.stack.errors import option
from walletctl.stack.state import StackState, Status


class Progress(AbstractContextManager["Progress"]):
    """Prints a line on standard error for each change; on a terminal, with a spinner until `done`."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()
        self._waiting: list[str] = []
        self._known: dict[str, Status] = {}
        self._starting = True
        self._spinner = err.status(title) if err.is_terminal else None

    def __enter__(self) -> Self:
        """Show the spinner."""
        if self._spinner:
            self._spinner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hide the spinner."""
        self.done()

    def done(self) -> None:
        """End the start: from now on, lines begin with the time of day."""
        self._starting = False
        if self._spinner:
            self._spinner.stop()

    def changed(self, name: str, status: Status, detail: str = "") -> None:
        """Print a process's new status if it is ready, or if there are details."""
        before, self._known[name] = self._known.get(name), status
        if detail or (status is Status.READY and before is not Status.READY):
            err.print(f"{self._when()}  {name:<20} {escape(detail) or status}", highlight=False, soft_wrap=True)
        if self._spinner and self._starting:
            self._spinner.update(f"{self._title} {', '.join(self._pending())}")

    def seen(self, state: StackState) -> None:
        """Print the changes since the last call, of a stack that another process runs."""
        for process in state.processes:
            if self._known.get(process.name) is not process.state:
                self.changed(process.name, process.state)

    def _pending(self) -> list[str]:
        return [name for name, status in self._known.items() if status is not Status.READY]

    def _when(self) -> str:
        if self._starting:
            return f"{time.monotonic() - self._began:6.1f} s"
        return time.strftime("%H:%M:%S")


def print_status(state: StackState) -> None:
    """Print a table of the processes."""
    rows = [(process.name, process.state, process.pid, process.restarts, process.url) for process in state.processes]
    print_table("Local stack", ("process", "state", "pid", "restarts", "address"), rows)


def print_next_steps(data_dir: Path, *, detached: bool) -> None:
    """Print how to use and how to stop a stack that is ready."""
    named = option(data_dir)
    stop = f"walletctl stack down {named}" if detached else "Ctrl-C"
    lines = [
        f'Use it from a shell:  eval "$(walletctl stack env {named})"',
        'Send its API key:     curl -H "Authorization: Bearer $WALLET_API_KEY" "$WALLET_API_URL/users/ada/wallets"',
        f"Its logs:             {data_dir}/logs/",
        f"Stop it:              {stop}",
    ]
    out.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
