"""Each decision has a frame, and docs/decisions/README.md lists it."""

import re
from pathlib import Path

import pytest

DECISIONS = Path(__file__).parents[2] / "docs" / "decisions"
PAGES = sorted(DECISIONS.glob("0*.md"))
STATUS = re.compile(r"Status: (accepted|superseded by \d{4}) · (\d{4}-\d\d-\d\d)\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_decision_has_a_status_a_date_context_decision_and_consequences(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {page.stem[:4]} ")
    assert STATUS.match(text.split("\n")[2])
    headings = [heading for heading in re.findall(r"^## (.+)$", text, re.MULTILINE) if heading != "Measured"]
    assert headings[:2] == ["Context", "Decision"]
    assert headings[-1] == "Consequences"


def test_the_index_lists_each_decision_with_its_title_status_and_date() -> None:
    listed = re.findall(
        r"^\| \[(.+?)]\((.+?)\) \| (.+?) \| (.+?) \|", (DECISIONS / "README.md").read_text(), re.MULTILINE
    )
    expected = []
    for page in PAGES:
        text = page.read_text()
        found = STATUS.search(text)
        assert found
        expected.append((text.split("\n")[0].removeprefix("# "), page.name, *found.groups()))
    assert listed == expected
