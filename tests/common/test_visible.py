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


def test_harmless_text_stays_unchanged() -> None:
    assert visible(PLAIN) == PLAIN
    assert visible_json(json.dumps(PLAIN, ensure_ascii=False)) == json.dumps(PLAIN, ensure_ascii=False)


@pytest.mark.parametrize("text", OBEYED, ids=ascii)
def test_a_terminals_control_sequences_become_visible(text: str) -> None:
    assert visible(text).isprintable()
    document = json.dumps({"a": text}, ensure_ascii=False)
    assert visible_json(document).isprintable()
    assert json.loads(visible_json(document)) == {"a": text}


def test_of_control_characters_only_tab_and_newline_stay() -> None:
    everything = "".join(map(chr, range(0x110000)))
    left = {letter for letter in visible(everything) if unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"}}
    assert left == {"\t", "\n"}
