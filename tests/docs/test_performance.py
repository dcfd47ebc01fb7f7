"""The README quotes docs/performance.md."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_figures_of_the_readme_are_those_of_the_performance_page() -> None:
    section = (ROOT / "README.md").read_text().split("**How it compares**")[1].split("\n\n")[1]
    figures = re.findall(r"(\d[\d,.]*) (?:/s|events/s|ms)", section)
    performance = (ROOT / "docs" / "performance.md").read_text()
    assert len(figures) > 1
    # 7.7 ms is 7.71 ms there.
    assert [figure for figure in figures if not re.search(rf"(?<![\d.]){re.escape(figure)}", performance)] == []
