"""Which of the media types that a route offers a client prefers (RFC 9110, section 12.5.1). Pure."""

import re
from collections.abc import Sequence
from typing import Final

_RANGE: Final = re.compile(r"\s*([!#$%&'*+.^_`|~0-9a-z-]+)/([!#$%&'*+.^_`|~0-9a-z-]+)\s*((?:;.*)?)", re.DOTALL)
_WEIGHT: Final = re.compile(r";\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", re.ASCII)


def preferred(accept: str | None, offered: Sequence[str]) -> str | None:
    """Return the offered media type with the highest weight, the first of equal ones; None if all are refused.

    Args:
        accept: the header's value; without it, or if it is empty, the first offered type is meant. Parameters of a
            range but its weight are ignored, and so is an element that isn't a range.
        offered: without parameters, in lower case.
    """
    if not accept or not accept.strip():
        return offered[0]
    ranges = [_range(element) for element in accept.lower().split(",")]
    weights = {media_type: _weight_of(media_type, [each for each in ranges if each]) for media_type in offered}
    best = max(offered, key=lambda media_type: weights[media_type])
    return best if weights[best] > 0 else None


def _range(element: str) -> tuple[str, float] | None:
    found = _RANGE.fullmatch(element)
    if found is None:
        return None
    weight = _WEIGHT.search(found[3])
    return f"{found[1]}/{found[2]}", float(weight[1]) if weight else 1.0


def _weight_of(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the weight by the most specific range that matches; 0 if none does."""
    for pattern in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        weights = [weight for name, weight in ranges if name == pattern]
        if weights:
            return max(weights)
    return 0.0
