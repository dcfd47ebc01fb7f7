"""`make mutants` takes long; that its patches still fit is seen at once."""

import subprocess
from pathlib import Path

import pytest

MUTANTS = Path(__file__).parent


@pytest.mark.parametrize("patch", sorted(MUTANTS.glob("*.patch")), ids=lambda patch: patch.stem)
def test_a_mutant_still_fits_the_code(patch: Path) -> None:
    checked = subprocess.run(
        ["git", "apply", "--check", str(patch)], cwd=MUTANTS.parents[1], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
