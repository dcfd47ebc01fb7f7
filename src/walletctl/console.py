"""The output of every command: tables for people, JSON for scripts, one-line errors and exit codes."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated, Any, NoReturn, TypeVar

import orjson
import typer
from pydantic import ValidationError
from rich.cells import cell_len
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
    """Print rows under `columns`, or each row as a record where they leave too little room for a word.

    No word is broken, so each id stands whole in one line. A cell that is None is shown as a dash.
    """
    shown = [[_shown(cell) for cell in row] for row in rows]
    _print(title, columns, shown, [list(zip(columns, row, strict=True)) for row in shown], console)


def print_fields(title: str, fields: Mapping[str, Any], *, console: Console = out) -> None:
    """Print one object as a table of fields and values, or as a record where that leaves too little room for a word."""
    shown = [(name, _shown(value)) for name, value in fields.items()]
    _print(title, ("field", "value"), shown, [shown], console)


def _shown(cell: object) -> str:
    return "-" if cell is None else visible(str(cell))


def _print(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    records: Sequence[Sequence[tuple[str, str]]],
    console: Console,
) -> None:
    heading = Text(visible(title))
    widths = _column_widths([list(texts) for texts in zip(columns, *rows, strict=True)], console.width)
    if widths is None:
        heading.stylize("italic")
        # In a pipe each line is whole. On a terminal rich breaks long ones between words.
        parts = (heading, *map(_record, records))
        console.print(*parts, sep="\n\n", end="\n\n", soft_wrap=not console.is_terminal, highlight=False)
        return
    table = Table(title=heading, title_justify="left", header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, width=width, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _column_widths(columns: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Return how wide each column is, so that no word in it is broken; None if there is not enough room for that.

    Columns that need little more than their longest word get it first: a column of prose gets what is left.
    """
    widths = [max((cell_len(word) for text in texts for word in text.split()), default=0) for texts in columns]
    longest = [max(cell_len(line) for text in texts for line in text.split("\n")) for texts in columns]
    # A border before each column and after the last one, and a space on each side of a cell.
    left = room - (3 * len(columns) + 1) - sum(widths)
    if left < 0:
        return None
    for number in sorted(range(len(columns)), key=lambda number: longest[number] - widths[number]):
        more = min(left, longest[number] - widths[number])
        widths[number] += more
        left -= more
    return widths


def _record(fields: Sequence[tuple[str, str]]) -> Text:
    """Return a line for each field; further lines of a value are indented."""
    width = max(len(name) for name, _ in fields)
    indent = "\n" + " " * (width + 2)
    return Text("\n".join(f"{name:<{width}}  {value}".replace("\n", indent) for name, value in fields))


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
