"""Moments on the command line: the one type of every option that takes a time."""

from datetime import UTC, datetime
from typing import Final

import typer

MOMENT_HELP: Final = (
    "ISO 8601, such as 2026-11-25, 2026-11-25T23:30 or 2026-11-25T23:30:00+02:00; UTC unless it says so"
)


def moment(text: str) -> datetime:
    """Return the moment that a text means, in UTC.

    Args:
        text: a date or a date and time of ISO 8601. Without an offset it is UTC; a date alone is its midnight.

    Raises:
        typer.BadParameter: it is neither, or lies outside the years 1 to 9999 in UTC.
    """
    try:
        said = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time. Write it as {MOMENT_HELP}") from error
    if said.tzinfo is None:
        return said.replace(tzinfo=UTC)
    try:
        return said.astimezone(UTC)
    except OverflowError as error:
        raise typer.BadParameter(f"{text!r} is outside the years 1 to 9999 in UTC") from error
