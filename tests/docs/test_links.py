"""The documentation links to, and names, only what there is."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Return the page without its blocks of code, which hold commands and diagrams."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return what GitHub makes of the page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"\[([^]]+)]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def named_paths(text: str) -> Iterator[str]:
    """Return each file of this repository that the text names as code: `package/module.py`, `docs/page.md`."""
    for code in re.findall(r"`([^`\s]+)`", text):
        if re.fullmatch(r"[\w.\-]+(/[\w.\-]+)*\.(py|md|toml|patch|sql|yaml)", code) and "/" in code:
            yield code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_named_exists(page: Path) -> None:
    for path in named_paths(prose(page)):
        places = (ROOT / path, ROOT / "src" / path, page.parent / path)
        assert any(place.exists() for place in places), f"{name_of(page)} names {path}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    left = [ROOT / "README.md"]
    while left:
        page = left.pop().resolve()
        if page in reached:
            continue
        reached.add(page)
        if page.suffix == ".md":
            targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(page))
            left += [page.parent / target for target in targets if not re.match(r"https?:", target)]
    missed = [page for page in PAGES if page.resolve() not in reached and ".github" not in page.parts]
    assert missed == []
