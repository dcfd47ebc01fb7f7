"""Moments in time as they are read and written in JSON."""

from datetime import UTC, datetime


def in_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC.

    Raises:
        ValueError: UTC has no such time: it lies in year 0 or 10000.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time that exists in UTC") from None


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC, to the microsecond."""
    return moment.isoformat().replace("+00:00", "Z")
