"""docs/reported-elsewhere.md names tests that there are, and the threads that its links lead to."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reported-elsewhere.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| reported ", "| --- "))
]


@cache
def names_in(path: str) -> set[str]:
    """Return the names of the tests in a file."""
    defined = ast.parse((ROOT / path).read_text()).body
    names = (each.name for each in defined if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
    return {name for name in names if name.startswith("test_")}


def test_each_report_has_tests_that_are_in_the_files_that_it_names() -> None:
    assert ROWS
    for reported, _, _, shown_by in ROWS:
        named = re.findall(r"`([^`]+)::([^`]+)`", shown_by)
        assert len(named) == len(shown_by.split("<br>")), reported
        assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []


def test_each_report_names_the_thread_that_its_link_leads_to() -> None:
    for reported, where, _, _ in ROWS:
        threads = re.findall(r"\[([\w/-]+)#(\d+)\]\(https://github\.com/([\w/-]+?)/(?:issues|pull)/(\d+)\)", where)
        assert threads or "](" not in where, reported
        assert len(threads) == where.count("]("), reported
        assert [thread for thread in threads if thread[:2] != thread[2:]] == []
