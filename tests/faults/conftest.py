"""The seed and the length of a run."""

import os
import random

import pytest

from faults.nemesis import PROCESS_FAULTS, SERVER_FAULTS

SHORT_SECONDS = 25.0
# The short run always plays the same schedule, so that what fails there is the change; `make faults` draws one.
# This one has many kinds of faults at its beginning, which all that it has time for.
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
    """How long things go wrong: FAULTS_SECONDS, else the short run that is part of `make test`."""
    return float(os.environ.get("FAULTS_SECONDS") or SHORT_SECONDS)


@pytest.fixture
def fault_names() -> list[str]:
    """Which faults there are: those of FAULTS_ONLY, its names parted by commas, or all."""
    names = [name.strip() for name in os.environ.get("FAULTS_ONLY", "").split(",") if name.strip()]
    if unknown := set(names) - {*PROCESS_FAULTS, *SERVER_FAULTS}:
        raise pytest.UsageError(
            f"FAULTS_ONLY: no fault {sorted(unknown)}; there are {[*PROCESS_FAULTS, *SERVER_FAULTS]}"
        )
    return names
