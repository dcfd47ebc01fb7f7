"""What every command shares: tables for eyes, JSON for scripts, one-line errors and exit codes."""

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
    """Prints no character of a string that a terminal would obey: what came from outside may be in it."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, strings made visible."""
        super().print(*(visible(item) if isinstance(item, str) else item for item in objects), **options)


# ":smile:" in a user's id is no emoji.
out = _VisibleConsole(emoji=False)
err = _VisibleConsole(stderr=True, emoji=False)

SettingsT = TypeVar("SettingsT")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of tables.")]


class Exit(IntEnum):
    """What `walletctl` exits with."""

    OK = 0
    FOUND_WRONG = 1
    """What was looked at isn't as it should be, or what was asked for isn't there."""
    USAGE = 2
    """Arguments, settings, grants or this machine (a full disk, a file) must be put right first."""
    UNREACHABLE = 3
    """A server is away, busy, read-only or without tables: the same may succeed later."""


def print_error(message: str) -> None:
    """Print one line to standard error."""
    err.print(Text.assemble(("error:", "red"), " ", visible(message)), soft_wrap=True, highlight=False)


def fail(message: str, code: Exit) -> NoReturn:
    """Print one line to standard error and exit with `code`."""
    print_error(message)
    raise typer.Exit(code)


def load_settings(settings: Callable[[], SettingsT]) -> SettingsT:
    """Build a settings class from the environment; bad configuration ends the process with one line."""
    try:
        return settings()
    except ValidationError as error:
        problems = "; ".join(
            ": ".join([*(str(part).upper() for part in item["loc"]), item["msg"].removeprefix("Value error, ")])
            for item in error.errors()
        )
        fail(f"bad configuration: {problems} (set it in the environment)", Exit.USAGE)


def print_json(value: object) -> None:
    """Write `value` as one JSON document to standard output, in UTF-8 (RFC 8259, section 8.1)."""
    document = orjson.dumps(value, default=str, option=orjson.OPT_APPEND_NEWLINE).decode()
    sys.stdout.flush()
    sys.stdout.buffer.write(visible_json(document).encode())
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under `columns`; a cell that is None shows as a dash."""
    table = Table(title=Text(visible(title)), title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else Text(visible(str(cell))) for cell in row))
    out.print(table)


def print_fields(title: str, fields: Mapping[str, Any]) -> None:
    """Print one thing as a two-column table."""
    print_table(title, ("field", "value"), fields.items())


@contextmanager
def progress_bar(description: str, total: float | None) -> Iterator[Callable[[float], None]]:
    """Show progress on standard error, and nothing when that isn't a terminal.

    Yields:
        A function that takes how much more has been done.
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
