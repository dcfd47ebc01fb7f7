"""Rows as lines of text: the SQL that makes a line of a row, and the comparison of two lines. Pure.

A line has a row's fields as text, joined by a character that no field contains. So rows of two separate databases can
be compared, and a pair that agrees costs one comparison of text.
"""

from collections.abc import Sequence
from typing import Final

SEPARATOR: Final = "\x1f"

UNKNOWN: Final = "?"
"""The text of a field that is unknown. It agrees with any text."""


def line(*fields: str) -> str:
    """Return SQL for the line of these SQL expressions; NULL is the empty text."""
    texts = ", ".join(f"coalesce(({field})::text, '')" for field in fields)
    return f"concat_ws(chr({ord(SEPARATOR)}), {texts})"


def time(field: str) -> str:
    """Return SQL for a time as text in UTC, to the microsecond."""
    return f"to_char({field} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"


def digest(field: str) -> str:
    """Return SQL for the SHA-256 of a text, in hexadecimal."""
    return f"encode(sha256(convert_to({field}::text, 'UTF8')), 'hex')"


def key(wallet_id: str, version: str) -> str:
    """Return SQL for a text that sorts by wallet and version."""
    return f"{wallet_id} || '/' || lpad({version}::text, 19, '0')"


def differing(names: Sequence[str], expected: str, found: str) -> tuple[str, str] | None:
    """Return the fields in which two lines differ, as expected and as found, or None if they agree."""
    pairs = zip(names, expected.split(SEPARATOR), found.split(SEPARATOR), strict=True)
    different = [(name, one, other) for name, one, other in pairs if one not in {other, UNKNOWN}]
    if not different:
        return None
    return (
        ", ".join(f"{name} {one or '(none)'}" for name, one, _ in different),
        ", ".join(f"{name} {other or '(none)'}" for name, _, other in different),
    )
