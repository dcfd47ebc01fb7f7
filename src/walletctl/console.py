"""The output of every command: tables for people, JSON for scripts, one-line errors and exit codes."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated, Any, NoReturn, TypeVar

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from common.visible import visible, visible_json


class _VisibleConsole(Console):
    """Escapes the control characters of strings, because a string may hold data of clients."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, with control characters escaped."""
        super().print(*(visible(item) if isinstance(item, str) else item for item in objects), **options)


# A user's id may hold ":smile:", which must not become an emoji.
out = _VisibleConsole(emoji=False)
err = _VisibleConsole(stderr=True, emoji=False)

SettingsT = TypeVar("SettingsT")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of tables.")]


class Exit(IntEnum):
    """The exit codes of `walletctl`."""

    OK = 0
    FOUND_WRONG = 1
    """A check failed, or the requested object doesn't exist."""
    USAGE = 2
    """Arguments, settings, grants or this machine (a full disk, a file) must be corrected first."""
    UNREACHABLE = 3
    """A server is away, busy, read-only or without tables: the same command may succeed later."""


def print_error(message: str) -> None:
    """Print one line to standard error."""
    err.print(Text.assemble(("error:", "red"), " ", visible(message)), soft_wrap=True, highlight=False)


def fail(message: str, code: Exit) -> NoReturn:
    """Print one line to standard error and exit with `code`."""
    print_error(message)
    raise typer.Exit(code)


def load_settings(settings: Callable[[], SettingsT]) -> SettingsT:
    """Read settings from the environment; an invalid one ends the process with one line and exit code 2."""
    try:
        return settings()
    except ValidationError as error:
        problems = "; ".join(
            ": ".join([*(str(part).upper() for part in item["loc"]), item["msg"].removeprefix("Value error, ")])
            for item in error.errors()
        )
        fail(f"invalid settings: {problems} (correct them in the environment)", Exit.USAGE)


def print_json(value: object) -> None:
    """Write `value` as one JSON document to standard output, in UTF-8 (RFC 8259, section 8.1)."""
    document = orjson.dumps(value, default=str, option=orjson.OPT_APPEND_NEWLINE).decode()
    sys.stdout.flush()
    sys.stdout.buffer.write(visible_json(document).encode())
    sys.stdout.flush()


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, console: Console = out
) -> None:
    """Print rows under `columns`; a cell that is None is shown as a dash."""
    table = Table(title=Text(visible(title)), title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else Text(visible(str(cell))) for cell in row))
    console.print(table)


def print_fields(title: str, fields: Mapping[str, Any], *, console: Console = out) -> None:
    """Print one object as a table of fields and values."""
    print_table(title, ("field", "value"), fields.items(), console=console)


@contextmanager
def progress_bar(description: str, total: float | None) -> Iterator[Callable[[float], None]]:
    """Show progress on standard error if that is a terminal.

    Yields:
        A function that takes the number of further steps that are done.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.advance(task, done)
