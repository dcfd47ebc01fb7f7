"""Checks of text: what PostgreSQL can store, and which user ids people can see and clients can send."""

import re
import unicodedata
from typing import Final

USER_ID_LENGTH_MAX: Final = 64
_LENGTH_MESSAGE: Final = f"must be 1 to {USER_ID_LENGTH_MAX} visible characters"

# Invisible characters that Python's `isprintable` accepts: those of Unicode's Default_Ignorable_Code_Point
# (DerivedCoreProperties.txt), and the Braille blank.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Path segments that don't survive in a URL: clients remove dot segments (RFC 3986, section 5.2.4), and servers merge
# slashes. Browsers treat a backslash as a slash.
_UNSTABLE_SEGMENTS: Final = {"", ".", ".."}


def check_text(value: str) -> str:
    """Return the text.

    Raises:
        ValueError: it has a NUL or a lone surrogate, which PostgreSQL can't store.
    """
    if "\x00" in value:
        raise ValueError("must not hold NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not hold lone surrogates") from None
    return value


def check_new_user_id(value: str) -> str:
    """Return the user id of a new wallet. Wallets that are older than this check are read with `check_user_id`.

    Raises:
        ValueError: people can't see the id or tell it from another one, or a client can't send it in a path.
    """
    check_user_id(value)
    if _INVISIBLE.search(value):
        raise ValueError(_LENGTH_MESSAGE)
    if not unicodedata.is_normalized("NFC", value):
        raise ValueError("must be in Unicode's normalization form C")
    if not _UNSTABLE_SEGMENTS.isdisjoint(re.split(r"[/\\]", value)):
        raise ValueError("must not be . or .., nor have these or nothing before, between or behind slashes")
    return value


def check_user_id(value: str) -> str:
    """Return the user id.

    Raises:
        ValueError: it isn't 1 to 64 visible characters; spaces and control characters are not visible.
    """
    if not 1 <= len(value) <= USER_ID_LENGTH_MAX or not value.isprintable() or " " in value:
        raise ValueError(_LENGTH_MESSAGE)
    return value
