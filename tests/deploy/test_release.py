"""What `make dist` makes. `make test-release` runs these tests."""

import hashlib
import json
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.release

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAME, VERSION = PROJECT["project"]["name"], PROJECT["project"]["version"]


def make_dist(directory: Path) -> dict[str, str]:
    """Make a release; return the SHA-256 of each file by its name, as SHA256SUMS has it."""
    command = ["make", "--no-print-directory", "dist", f"DIST={directory}", "SOURCE_DATE_EPOCH=1764000000"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    lines = (directory / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    make_dist(directory)
    return directory


def test_two_builds_of_the_same_source_are_the_same_files(release: Path, tmp_path: Path) -> None:
    again = make_dist(tmp_path)
    assert set(again) == {
        f"wallet_outbox-{VERSION}-py3-none-any.whl",
        f"wallet_outbox-{VERSION}.tar.gz",
        f"wallet_outbox-{VERSION}.cdx.json",
    }
    assert again == {name: hashlib.sha256((release / name).read_bytes()).hexdigest() for name in again}


def test_the_source_archive_has_no_file_that_git_would_ignore_or_that_nobody_named(release: Path) -> None:
    with tarfile.open(release / f"wallet_outbox-{VERSION}.tar.gz") as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames()]
    named = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    assert {name.split("/")[0] for name in names} <= {*named, ".gitignore", "PKG-INFO"}
    assert not [name for name in names if re.search(r"__pycache__|\.pyc$|(^|/)\.(venv|tools|env)(/|$)", name)]


def test_the_bill_of_materials_names_each_locked_requirement_with_its_hashes(release: Path) -> None:
    bill = json.loads((release / f"wallet_outbox-{VERSION}.cdx.json").read_text())
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == (NAME, VERSION)
    locked = (ROOT / "requirements" / "runtime.txt").read_text()
    assert {(part["name"], part["version"]) for part in bill["components"]} == set(
        re.findall(r"^([a-z0-9-]+)(?:\[\S+\])?==(\S+)", locked, re.MULTILINE)
    )
    hashes = [
        found["content"]
        for part in bill["components"]
        for reference in part["externalReferences"]
        for found in reference["hashes"]
    ]
    assert sorted(hashes) == sorted(re.findall(r"--hash=sha256:(\w+)", locked))
