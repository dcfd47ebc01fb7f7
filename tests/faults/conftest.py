"""The seed and the length of a run."""

import os
import random

import pytest

from faults.nemesis import PROCESS_FAULTS, SERVER_FAULTS

SHORT_SECONDS = 15.0
# The short run always has the same schedule, so that a failure is due to a change. `make faults` draws one.
# This schedule begins with many kinds of faults; the short run ends soon.
SHORT_SEED = 9213


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="replay the fault suite's schedule of this seed (or FAULTS_SEED)")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    given = request.config.getoption("--seed")
    if given is None:
        given = os.environ.get("FAULTS_SEED") or _default_seed()
    return int(given)


def _default_seed() -> int:
    return random.SystemRandom().randrange(2**32) if os.environ.get("FAULTS_SECONDS") else SHORT_SEED


@pytest.fixture
def fault_seconds() -> float:
    """How long faults happen: FAULTS_SECONDS, otherwise the short run that is part of `make test`."""
    return float(os.environ.get("FAULTS_SECONDS") or SHORT_SECONDS)


@pytest.fixture
def fault_names() -> list[str]:
    """The faults of the run: those of FAULTS_ONLY, separated by commas, or all if it is empty."""
    names = [name.strip() for name in os.environ.get("FAULTS_ONLY", "").split(",") if name.strip()]
    if unknown := set(names) - {*PROCESS_FAULTS, *SERVER_FAULTS}:
        raise pytest.UsageError(
            f"FAULTS_ONLY: no fault {sorted(unknown)}; there are {[*PROCESS_FAULTS, *SERVER_FAULTS]}"
        )
    return names
