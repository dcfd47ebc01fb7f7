"""What deploy/Dockerfile says, without a Docker engine. `make test-release` tries the image itself."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = "python:3.12-slim-bookworm"


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile, with its arguments on one line."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def arguments(instructions: list[tuple[str, str]], name: str) -> list[str]:
    return [argument for instruction, argument in instructions if instruction == name]


def test_each_stage_is_of_one_pinned_base_and_no_other_image_is_pulled(instructions: list[tuple[str, str]]) -> None:
    assert [base.split()[0] for base in arguments(instructions, "FROM")] == [BASE, BASE]
    assert not (ROOT / "deploy" / "Dockerfile").read_text().lower().startswith("# syntax")
    assert f'base.name="{BASE}"' in " ".join(arguments(instructions, "LABEL"))


def test_the_last_user_is_numeric_and_not_root(instructions: list[tuple[str, str]]) -> None:
    assert arguments(instructions, "USER")[-1] == "10001:10001"


def test_walletctl_is_the_first_process_and_gets_the_signals(instructions: list[tuple[str, str]]) -> None:
    assert arguments(instructions, "ENTRYPOINT") == ['["walletctl"]']
    assert arguments(instructions, "STOPSIGNAL") == ["SIGTERM"]
    assert not arguments(instructions, "CMD")


def test_each_installation_is_by_hash_or_of_the_project_alone(instructions: list[tuple[str, str]]) -> None:
    runs = " && ".join(arguments(instructions, "RUN")).split("&&")
    installations = [run for run in runs if " install " in run and "apt-get" not in run]
    assert len(installations) == 3
    for run in installations:
        assert "--require-hashes" in run or {"--no-deps", "--no-index"} <= set(run.split()), run


def test_only_named_files_enter_the_build(instructions: list[tuple[str, str]]) -> None:
    assert not arguments(instructions, "ADD")
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = [copy.split()[:-1] for copy in arguments(instructions, "COPY") if not copy.startswith("--from")]
    mounted = re.findall(r"source=(\S+?),", " ".join(arguments(instructions, "RUN")))
    sources = {source for sources in copied for source in sources} | set(mounted)
    assert {source if source in allowed else source.split("/")[0] for source in sources} == allowed


def test_a_hash_locked_requirement_of_the_image_is_the_one_that_the_tests_run_with() -> None:
    locked = [
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("dev.txt", "runtime.txt", "build.txt")
    ]
    assert locked[1].items() | locked[2].items() <= locked[0].items()


def test_the_image_and_the_package_have_the_same_name_and_description(instructions: list[tuple[str, str]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = dict(re.findall(r'(\S+)="([^"]*)"', " ".join(arguments(instructions, "LABEL"))))
    assert labels["org.opencontainers.image.title"] == project["name"]
    assert labels["org.opencontainers.image.description"] == project["description"]
    assert labels["org.opencontainers.image.version"] == "$VERSION"
