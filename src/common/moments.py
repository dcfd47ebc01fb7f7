"""Moments in time as they are read and written in JSON."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

_RFC_3339: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def check_rfc3339(text: str) -> str:
    """Return the text of a moment. Pydantic would also accept a number of seconds, such as 2026, and a date alone.

    Raises:
        ValueError: it isn't a moment as RFC 3339 writes it, with an offset.
    """
    if not _RFC_3339.fullmatch(text):
        raise ValueError("must be a moment with an offset, such as 2026-01-01T00:00:00Z")
    return text


def in_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC.

    Raises:
        ValueError: UTC has no such time: it lies in year 0 or 10000.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time that exists in UTC") from None


Moment = Annotated[AwareDatetime, BeforeValidator(check_rfc3339), AfterValidator(in_utc)]
"""A moment in UTC, read as RFC 3339 writes it."""


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC, to the microsecond."""
    return moment.isoformat().replace("+00:00", "Z")
