"""The filter `metadata[key]=value` of a query.

OpenAPI calls this form of a parameter the style `deepObject` (OpenAPI 3.1, "Style Values"). FastAPI does not read it.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from common.problems import ValidationProblem
from common.text import check_text

MEMBERS_MAX: Final = 10
LENGTH_MAX: Final = 255

# A key may have brackets, but `metadata[a][b]` would mean a member of a member.
_NAME: Final = re.compile(r"metadata\[((?:(?!\]\[).)*)\]", re.DOTALL)

PARAMETER: Final[Mapping[str, Any]] = {
    "name": "metadata",
    "in": "query",
    "required": False,
    "style": "deepObject",
    "explode": True,
    "description": "`metadata[key]=value`: the transaction's `metadata` has this member, and its value is this string."
    f" With `wallet_id`; up to {MEMBERS_MAX} keys, all of which must match. A page may then have fewer items than"
    " `limit`, or none, and still a `next_cursor`.",
    "schema": {
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": LENGTH_MAX},
        "propertyNames": {"maxLength": LENGTH_MAX},
        "maxProperties": MEMBERS_MAX,
    },
    "example": {"order": "4711"},
}
"""The filter in the OpenAPI document."""


def metadata_of(query: Mapping[str, str]) -> dict[str, str]:
    """Return the members that the query names, in the order of their keys.

    Raises:
        ValidationProblem: a name or a value is not valid, or there are too many.
    """
    members = {}
    for name, value in query.items():
        if name != "metadata" and not name.startswith("metadata["):
            continue
        if not (match := _NAME.fullmatch(name)):
            raise ValidationProblem.of(name, "must be metadata[key]=value, with the key of a member of metadata itself")
        members[match[1]] = value
        _check(name, match[1], value)
    if len(members) > MEMBERS_MAX:
        raise ValidationProblem.of("metadata", f"send at most {MEMBERS_MAX} keys")
    return dict(sorted(members.items()))


def _check(name: str, *texts: str) -> None:
    for text in texts:
        if len(text) > LENGTH_MAX:
            raise ValidationProblem.of(name, f"key and value must have at most {LENGTH_MAX} characters each")
        try:
            check_text(text)
        except ValueError as error:
            raise ValidationProblem.of(name, str(error)) from None
