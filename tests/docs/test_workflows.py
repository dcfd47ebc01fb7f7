"""The workflows of .github: what they run exists, what they use is pinned, what they may do is little."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WITH_ACTIONS = [*WORKFLOWS, *sorted((ROOT / ".github" / "actions").glob("*/action.yml"))]
RIGHTS_TO_WRITE = {
    ("image.yml", "publish"): {"attestations", "id-token", "packages"},
    ("release.yml", "publish"): {"attestations", "contents", "id-token"},
}
"""All rights to write that jobs have."""


def jobs(workflow: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(workflow.read_text())["jobs"]
    return found


def named_targets() -> set[str]:
    """Return the targets that jobs make, by name or from their matrix."""
    found: set[str] = set()
    for path in WITH_ACTIONS:
        for command in re.findall(r"\brun: make ([a-z -]+)$", path.read_text(), re.MULTILINE):
            found.update(command.split())
    for job in (job for path in WORKFLOWS for job in jobs(path).values()):
        matrix = job.get("strategy", {}).get("matrix", {})
        found.update(matrix.get("target", []), (included["target"] for included in matrix.get("include", [])))
    return found


def test_each_target_that_a_workflow_makes_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"lint", "unit", "test", "demo", "faults", "mutants", "image", "dist"} <= named_targets()
    assert named_targets() <= targets


@pytest.mark.parametrize("path", WITH_ACTIONS, ids=lambda path: path.parent.name + "/" + path.name)
def test_each_action_is_pinned_by_its_commit_and_names_its_version(path: Path) -> None:
    for used in re.findall(r"\buses: (.+)", path.read_text()):
        assert used.startswith("./.github/") or re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used)


def test_an_action_has_one_version_everywhere() -> None:
    used = set(re.findall(r"\buses: (actions/.+)", "".join(path.read_text() for path in WITH_ACTIONS)))
    assert len(used) == len({reference.partition("@")[0] for reference in used})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_has_the_rights_that_it_needs_and_no_others(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {}
    for name, job in jobs(path).items():
        rights = job["permissions"]
        assert set(rights.values()) <= {"read", "write"}
        written = {right for right, value in rights.items() if value == "write"}
        assert written == RIGHTS_TO_WRITE.get((path.name, name), set())
        assert set(rights) - written <= {"contents"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_ends_within_a_time_and_leaves_no_credentials_behind(path: Path) -> None:
    for job in jobs(path).values():
        assert "uses" in job or job["timeout-minutes"] <= 330
        checkouts = [step for step in job.get("steps", []) if step.get("uses", "").startswith("actions/checkout@")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_a_job_that_may_publish_runs_no_code_of_the_repository() -> None:
    for name, job in RIGHTS_TO_WRITE:
        steps = jobs(WORKFLOWS[0].with_name(name))[job]["steps"]
        assert not [step for step in steps if "checkout" in step.get("uses", "") or "make " in step.get("run", "")]


def test_no_workflow_that_publishes_restores_a_cache() -> None:
    for name in ("image.yml", "release.yml"):
        steps = [step for job in jobs(WORKFLOWS[0].with_name(name)).values() for step in job.get("steps", [])]
        assert not [step for step in steps if "cache" in step.get("uses", "") or "/setup" in step.get("uses", "")]
