import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import problems
from common.problems import Problem, ValidationProblem

LEAVES = [
    item
    for item in vars(problems).values()
    if isinstance(item, type) and issubclass(item, Problem) and item is not Problem
]


@pytest.mark.parametrize("kind", LEAVES)
@given(detail=st.text(), instance=st.text(), extensions=st.dictionaries(st.sampled_from(["wallet_id", "x"]), st.text()))
def test_every_problem_makes_a_document_of_rfc_9457(
    kind: type[Problem], detail: str, instance: str, extensions: dict[str, str]
) -> None:
    # Some kinds have arguments of their own, which are for headers and logs.
    problem = kind.__new__(kind)
    Problem.__init__(problem, detail, extensions=extensions)
    document = json.loads(problem.body(instance))
    assert document == {
        "type": f"urn:wallet:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": instance,
        "code": kind.code,
        **extensions,
    }


def test_a_validation_problem_names_the_field_in_its_detail_and_its_errors() -> None:
    problem = ValidationProblem.of("amount", "must be more than zero")
    assert problem.detail == "amount: must be more than zero"
    document = json.loads(problem.body("/wallets"))
    assert document["errors"] == [{"field": "amount", "message": "must be more than zero"}]


def test_pydantics_errors_become_fields_in_the_clients_words() -> None:
    problem = ValidationProblem.of_errors(
        [
            {"loc": ("path", "wallet_id"), "msg": "must be a UUID"},
            {"loc": ("query", "limit"), "msg": "must be less"},
            {"loc": ("metadata", "a", 0), "msg": "Value error, must not hold NUL characters"},
            {"loc": (), "msg": "must be an object"},
        ]
    )
    assert problem.errors == [
        {"field": "wallet_id", "message": "must be a UUID"},
        {"field": "limit", "message": "must be less"},
        {"field": "metadata.a.0", "message": "must not hold NUL characters"},
        {"field": "body", "message": "must be an object"},
    ]
    assert problem.detail.count(";") == 3


def test_only_what_may_go_away_by_itself_says_when_to_ask_again() -> None:
    assert problems.Unavailable("away").headers() == {"Retry-After": "1"}
    assert problems.RouteNotFound("nothing").headers() == {}


def _documented() -> Iterator[tuple[str, str]]:
    for line in (problems.__doc__ or "").splitlines():
        if line.startswith(("├── ", "└── ")):
            name, status, code, *_ = line[4:].split()
            yield name, f"{status} {code}"


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    assert dict(_documented()) == {kind.__name__: f"{kind.status} {kind.code}" for kind in LEAVES}
