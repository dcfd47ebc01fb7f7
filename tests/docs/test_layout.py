"""docs/contributing/layout.md shows the packages that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tree_shows_every_package() -> None:
    tree = (ROOT / "docs" / "contributing" / "layout.md").read_text()
    shown = set(re.findall(r"[├└]── ([a-z_]+)/", tree))
    assert shown == {path.parent.name for path in (ROOT / "src").rglob("__init__.py")}
