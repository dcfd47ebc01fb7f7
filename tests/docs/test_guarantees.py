"""docs/guarantees.md and docs/fault-suite.md name the failpoints and mutants that there are, for each promise."""

import re
from pathlib import Path

from common.failpoints import NAMES

ROOT = Path(__file__).parents[2]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
FAULT_SUITE = (ROOT / "docs" / "fault-suite.md").read_text()
MUTANTS = {patch.stem: patch.read_text() for patch in (ROOT / "tests" / "mutants").glob("*.patch")}
PROMISES = {
    int(number): text
    for number, text in re.findall(r"^## (\d+)\. (.*?)(?=^## |\Z)", GUARANTEES, re.MULTILINE | re.DOTALL)
}


def test_the_promises_are_numbered_and_each_says_its_limits_and_what_shows_it() -> None:
    assert list(PROMISES) == list(range(1, 17))
    for promise in PROMISES.values():
        assert [part for part in re.findall(r"^\*\*(.+?)\.\*\*", promise, re.MULTILINE) if part != "How"] == [
            *("Promised", "Limits", "Shown by")
        ]
        assert "\n- Tests: " in promise


def test_the_failpoints_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `((?:api|relay|consumer)\.[a-z_]+)` \| (.+) \|$", FAULT_SUITE, re.MULTILINE)
    assert dict(rows) == NAMES


def test_every_mutant_is_listed_and_the_fault_suite_catches_those_that_say_so() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| [0-9, ]+ \| (yes|no|not reliably) \|$", FAULT_SUITE, re.MULTILINE)
    by_suite = {name: "\nCaught by the fault suite: " in text for name, text in MUTANTS.items()}
    assert {name: said == "yes" for name, said in rows} == by_suite


def test_each_promise_names_the_mutants_that_break_it() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| ([0-9, ]+) \|", FAULT_SUITE, re.MULTILINE)
    broken = {(name, int(number)) for name, numbers in rows for number in numbers.split(",")}
    named = {
        (name, number)
        for number, text in PROMISES.items()
        for line in re.findall(r"^- Mutants: (.*?)\.$", text, re.MULTILINE | re.DOTALL)
        for name in re.findall(r"`([a-z_]+)`", line)
    }
    assert named == broken
