"""Which text PostgreSQL, JSON and a person's eye can all take."""

import re
import unicodedata
from typing import Final

USER_ID_LENGTH_MAX: Final = 64
_NOT_VISIBLE: Final = f"must be 1 to {USER_ID_LENGTH_MAX} visible characters"

# Printable for Python, and yet nothing to see: of Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt)
# what `isprintable` lets pass, and the blank of Braille.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Between slashes: the client removes it from a URL's path (RFC 3986, section 5.2.4), or a server merges the slashes.
# Browsers take a backslash for a slash.
_LOST_IN_PATHS: Final = {"", ".", ".."}


def check_text(value: str) -> str:
    """Return the text, or raise ValueError: NUL and lone surrogates can't be stored."""
    if "\x00" in value:
        raise ValueError("must not hold NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not hold lone surrogates") from None
    return value


def check_new_user_id(value: str) -> str:
    """Return the user id, or raise ValueError: none that one can't see, tell from another, or ask for in a path.

    For wallets that are made. Those of users with other ids, from before, are read and told by `check_user_id`.
    """
    check_user_id(value)
    if _UNSEEN.search(value):
        raise ValueError(_NOT_VISIBLE)
    if not unicodedata.is_normalized("NFC", value):
        raise ValueError("must be in Unicode's normalization form C")
    if not _LOST_IN_PATHS.isdisjoint(re.split(r"[/\\]", value)):
        raise ValueError("must not be . or .., nor have these or nothing before, between or behind slashes")
    return value


def check_user_id(value: str) -> str:
    """Return the user id, or raise ValueError: 1 to 64 visible characters, so no spaces and no controls."""
    if not 1 <= len(value) <= USER_ID_LENGTH_MAX or not value.isprintable() or " " in value:
        raise ValueError(_NOT_VISIBLE)
    return value
