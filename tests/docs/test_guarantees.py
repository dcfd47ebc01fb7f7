"""docs/guarantees.md names what there is."""

import re
from pathlib import Path

from common.failpoints import NAMES

ROOT = Path(__file__).parents[2]
GUARANTEES = ROOT / "docs" / "guarantees.md"


def test_every_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", GUARANTEES.read_text())
    assert targets
    assert [target for target in targets if not (GUARANTEES.parent / target).exists()] == []


def test_the_failpoints_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `((?:api|relay|consumer)\.[a-z_]+)` \| (.+) \|$", GUARANTEES.read_text(), re.MULTILINE)
    assert dict(rows) == NAMES


def test_every_mutant_is_listed_with_the_promise_it_breaks() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| [0-9, ]+ \| (yes|no|not reliably) \|$", GUARANTEES.read_text(), re.MULTILINE)
    patches = {patch.stem: patch.read_text() for patch in (ROOT / "tests" / "mutants").glob("*.patch")}
    by_suite = {name: "\nCaught by the fault suite: " in text for name, text in patches.items()}
    assert {name: said == "yes" for name, said in rows} == by_suite
