"""Times on the command line: the one parser of every option that takes a time."""

from datetime import UTC, datetime
from typing import Final

import typer

TIME_HELP: Final = "ISO 8601, such as 2026-11-25, 2026-11-25T23:30 or 2026-11-25T23:30:00+02:00; UTC without an offset"


def parse_time(text: str) -> datetime:
    """Return the time that a text means, in UTC.

    Args:
        text: a date, or a date and time, of ISO 8601. Without an offset it is in UTC; a date alone is its midnight.

    Raises:
        typer.BadParameter: it is neither, or lies outside the years 1 to 9999 in UTC.
    """
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a time. Write it in {TIME_HELP}") from error
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise typer.BadParameter(f"{text!r} is outside the years 1 to 9999 in UTC") from error
