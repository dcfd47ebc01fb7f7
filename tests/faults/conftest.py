"""The seed and the length of a run."""

import os
import random

import pytest

SHORT_SECONDS = 25.0
# The short run always plays the same schedule, so that what fails there is the change; `make faults` draws one.
SHORT_SEED = 1


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
