"""What can be set, seen or typed is documented, and what is documented is there."""

import re
from pathlib import Path

import pytest

from common.problems import Problem
from history_consumer.read_api import errors as history_errors
from tools.reference import pages
from wallet_api import app as wallet_app

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["settings.md", "metrics.md", "commands.md", "roles.md"])
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    """Run `make docs` after a change."""
    assert (DOCS / name).read_text() == pages()[name]


def leaves(kind: type[Problem]) -> set[type[Problem]]:
    below = kind.__subclasses__()
    return {kind} if not below else set().union(*map(leaves, below))


def test_the_error_catalogue_lists_every_problem_with_its_status_and_whether_it_is_decided() -> None:
    assert wallet_app
    assert history_errors
    lines = re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \| (yes)? ?\|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    documented = {(int(status), code, decided == "yes") for status, code, decided in lines}
    assert documented == {(problem.status, problem.code, problem.decided) for problem in leaves(Problem)}
