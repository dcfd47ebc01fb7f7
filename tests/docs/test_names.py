"""What the documentation names is there: settings, metrics, commands with their options, targets of make."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
SOURCES = [path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
WORKFLOWS = (ROOT / ".github" / "workflows").glob("*.yml")
SOURCE = "\n".join(path.read_text() for path in [*SOURCES, *WORKFLOWS, ROOT / "Makefile"])
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
SECRET_FILES = {f"{name}_FILE" for name in re.findall(r"`([A-Z_]+)` \(`_FILE`\)", SETTINGS)}
METRICS = set(re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
_COMMAND = re.compile(r"^## `walletctl (.+?)`\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
COMMANDS = dict(_COMMAND.findall((ROOT / "docs" / "commands.md").read_text()))
FOREIGN = {"DESCRIBE_CONFIGS", "ALTER_CONFIGS", "JAVA_TOOL_OPTIONS", "STRIMZI_POD_SECURITY_PROVIDER_CLASS"}
"""Kafka's ACLs, variables of Java and Strimzi."""

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code(page: Path) -> str:
    """Return what the page shows as code."""
    text = page.read_text()
    blocks = re.findall(r"^ *```sh\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    return "\n".join([*re.findall(r"`([^`\n]+)`", text), *blocks])


@by_page
def test_every_setting_that_is_named_exists(page: Path) -> None:
    names = set(re.findall(r"\b[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+\b", code(page))) - FOREIGN - SECRET_FILES
    assert [name for name in names if name not in SETTINGS and name not in SOURCE and name.lower() not in SOURCE] == []


@by_page
def test_every_metric_that_is_named_exists(page: Path) -> None:
    names = set(re.findall(r"\b((?:history|outbox_relay|wallet|http|background)_[a-z_]+_total)\b", code(page)))
    assert {name.removesuffix("_total") for name in names} <= METRICS


@by_page
def test_every_command_that_is_named_exists_with_its_options(page: Path) -> None:
    for line in re.findall(r"\bwalletctl ((?:[a-z]|--)[^;`|#\n…]*)", code(page).replace("\\|", "|")):
        words = line.replace('"', " ").replace(")", " ").split()
        path = next((" ".join(words[:n]) for n in (3, 2, 1) if " ".join(words[:n]) in COMMANDS), None)
        groups = {name.rsplit(" ", 1)[0] for name in COMMANDS if " " in name}
        if words[0] == "--version":
            continue
        assert path or " ".join(words[:2]) in groups or words[0] in groups, f"walletctl {line}"
        options = re.findall(r"(?<!\S)--?[a-z][a-z\-]*", line)
        assert not path or [option for option in options if f"`{option}`" not in COMMANDS[path]] == []


@by_page
def test_every_target_of_make_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)\b", code(page), re.MULTILINE)) <= targets
