"""Escapes for control characters in text from outside, before a terminal or a log shows it."""

import re
from typing import Final

# The hidden characters:
# - C0 but tab and newline, DEL and C1, which a terminal takes as commands (ECMA-48; CWE-150)
# - line and paragraph separators
# - bidirectional controls, which reorder text (Unicode Standard Annex 9; CVE-2021-42574)
# - lone surrogates, which UTF-8 can't encode
_HIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return the text with control characters and invisible characters as escapes, such as `\x1b` and `\u202e`."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_json(text: str) -> str:
    r"""Return the JSON document with those characters as JSON escapes, such as `\u001b`. Its value stays the same."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
