"""Which text PostgreSQL, JSON and a person's eye can all take."""

from typing import Final

USER_ID_LENGTH_MAX: Final = 64


def check_text(value: str) -> str:
    """Return the text, or raise ValueError: NUL and lone surrogates can't be stored."""
    if "\x00" in value:
        raise ValueError("must not hold NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not hold lone surrogates") from None
    return value


def check_user_id(value: str) -> str:
    """Return the user id, or raise ValueError: 1 to 64 visible characters, so no spaces and no controls."""
    if not 1 <= len(value) <= USER_ID_LENGTH_MAX or not value.isprintable() or " " in value:
        raise ValueError(f"must be 1 to {USER_ID_LENGTH_MAX} visible characters")
    return value
