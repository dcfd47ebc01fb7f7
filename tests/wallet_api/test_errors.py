import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import wallet_api.app
from common import problems
from common.problems import Problem
from wallet_api import errors
from wallet_api.operations import errors as operation_errors

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"


def leaves_of(module: ModuleType) -> set[type[Problem]]:
    return {
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Problem) and item is not Problem
    }


def subclasses_of(kind: type[Problem]) -> Iterator[type[Problem]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses_of(below)


MODULES = [errors, operation_errors]
MONEY_PROBLEMS = {kind for module in MODULES for kind in leaves_of(module)}
ALL_PROBLEMS = MONEY_PROBLEMS | leaves_of(problems)


def test_no_two_problems_share_a_code() -> None:
    assert len({kind.code for kind in ALL_PROBLEMS}) == len(ALL_PROBLEMS)


def test_all_problems_of_the_api_are_in_its_modules_of_errors() -> None:
    assert wallet_api.app
    assert {kind for kind in subclasses_of(Problem) if kind.__module__.startswith("wallet_api.")} == MONEY_PROBLEMS


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_tree_in_the_docstring_is_the_tree_of_classes(module: ModuleType) -> None:
    lines = [line.strip()[4:] for line in (module.__doc__ or "").splitlines() if line.strip()[:4] in {"├── ", "└── "}]
    expected = set()
    for kind in leaves_of(module):
        note = "(decided)" if kind.decided else "(+ Retry-After)" if kind.retry_after_seconds else ""
        expected.add(f"{kind.__name__} {kind.status} {kind.code} {note}".strip())
    assert {" ".join(line.split()) for line in lines} == expected


def documented() -> Iterator[tuple[str, int, bool]]:
    for line in DOCUMENT.read_text().splitlines():
        if row := re.fullmatch(r"\| (\d+) \| `([a-z-]+)` \| (yes)? ?\| .+ \|", line):
            yield row[2], int(row[1]), bool(row[3])


def test_the_catalogue_in_the_docs_has_each_problem_with_its_status_and_whether_it_is_decided() -> None:
    rows = {code: (status, decided) for code, status, decided in documented()}
    assert {kind.code: rows.get(kind.code) for kind in ALL_PROBLEMS} == {
        kind.code: (kind.status, kind.decided) for kind in ALL_PROBLEMS
    }


def test_what_is_decided_never_asks_to_come_again() -> None:
    assert not [kind for kind in ALL_PROBLEMS if kind.decided and kind.retry_after_seconds]
    assert not [kind for kind in ALL_PROBLEMS if kind.decided and kind.status in {401, 403, 404, 412, 429, 500, 503}]
