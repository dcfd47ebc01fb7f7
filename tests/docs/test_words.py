"""The documentation has one word for one thing: those of docs/glossary.md."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = {"commands.md", "metrics.md", "settings.md"}
PAGES = sorted(page for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if page.name not in GENERATED)
AVOIDED = {
    "put aside": "parked, dead-lettered or skipped",
    "set aside": "parked, dead-lettered or skipped",
    "held up": "parked, or waiting",
    "standstill": "stall",
    "neighbour": "another request of the batch",
    "pulse": "health check",
    "nobody": "the actor",
    "somebody": "the actor",
    "whoever": "the actor",
}


def test_each_term_is_in_the_glossary_once() -> None:
    terms = re.findall(r"^- \*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert len(terms) > 1
    assert len({term.lower() for term in terms}) == len(terms)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_uses_the_words_of_the_glossary(page: Path) -> None:
    text = " ".join(page.read_text().split()).lower()
    assert {word: better for word, better in AVOIDED.items() if re.search(rf"\b{word}s?\b", text)} == {}
