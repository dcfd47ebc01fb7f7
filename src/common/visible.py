"""What came from outside, made fit for a terminal or a log line."""

import re
from typing import Final

# C0 but tab and newline, DEL, C1: a terminal takes them as commands (ECMA-48; CWE-150). Line and paragraph separators.
# What turns the direction of text round (Unicode Standard Annex 9; CVE-2021-42574). Lone surrogates: UTF-8 has none.
_HIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return the text with what a terminal would obey, or nobody would see, as escapes: `\x1b`, `\u202e`."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_json(text: str) -> str:
    r"""Return the JSON document with the same characters as JSON escapes: `\u001b`. It means what it meant."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
