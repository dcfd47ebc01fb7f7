import json
import unicodedata

import pytest

from common.visible import visible, visible_json

PLAIN = "héllo\n\tπ 你好 \\ \u200f"
OBEYED = [
    "\x1b[31m",
    "\x1b]8;;x\x07",
    "\x00",
    "\x07",
    "\x08",
    "\r",
    "\x7f",
    "\x85",
    "\x9b31m",
    "\u202e",
    "\u2066",
    "\u2028",
]


def test_text_stays_as_it_is() -> None:
    assert visible(PLAIN) == PLAIN
    assert visible_json(json.dumps(PLAIN, ensure_ascii=False)) == json.dumps(PLAIN, ensure_ascii=False)


@pytest.mark.parametrize("text", OBEYED, ids=ascii)
def test_what_a_terminal_would_obey_is_seen_instead(text: str) -> None:
    assert visible(text).isprintable()
    document = json.dumps({"a": text}, ensure_ascii=False)
    assert visible_json(document).isprintable()
    assert json.loads(visible_json(document)) == {"a": text}


def test_no_control_character_but_tab_and_newline_gets_through() -> None:
    everything = "".join(map(chr, range(0x110000)))
    left = {letter for letter in visible(everything) if unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"}}
    assert left == {"\t", "\n"}
