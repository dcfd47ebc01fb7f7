"""The last release, whose wheel is kept in this folder: `make last-release` replaces it when a release is made."""

import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def last_release_wheel() -> Path:
    (wheel,) = FOLDER.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def last_release(last_release_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variable with which Python runs the last release's code, and the libraries of this environment."""
    directory = tmp_path_factory.mktemp("last-release")
    with zipfile.ZipFile(last_release_wheel) as wheel:
        wheel.extractall(directory)
    return {"PYTHONPATH": str(directory)}
