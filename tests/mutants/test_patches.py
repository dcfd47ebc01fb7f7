"""`make mutants` takes long; that its patches still fit is seen at once."""

import subprocess
import sys
from pathlib import Path

import pytest

MUTANTS = Path(__file__).parent


@pytest.mark.parametrize("patch", sorted(MUTANTS.glob("*.patch")), ids=lambda patch: patch.stem)
def test_a_mutant_still_fits_the_code(patch: Path) -> None:
    checked = subprocess.run(
        ["git", "apply", "--check", str(patch)], cwd=MUTANTS.parents[1], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_the_script_of_make_mutants_starts_and_refuses_a_name_that_no_mutant_has() -> None:
    started = subprocess.run(
        [sys.executable, "tests/mutants/run.py", "no_such_mutant"],
        cwd=MUTANTS.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (started.returncode, started.stderr) == (2, "no mutant has the name no_such_mutant\n")
