"""docs/troubleshooting.md has each log event, reason and alarm that an operator may see."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
ERRORS = (ROOT / "docs" / "errors.md").read_text()
SOURCE = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))


def first_cells(heading: str) -> set[str]:
    """Return the code in the first column of a section's tables."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section, heading
    cells = re.findall(r"^\| ([^|]+) \|", section[1], re.MULTILINE)
    return {code for cell in cells for code in re.findall(r"`([a-z_\-]+)", cell)}


def test_every_warning_and_error_that_is_logged_is_explained_and_nothing_else() -> None:
    logged = set(re.findall(r"\.(?:warning|error|critical|defect)\(\s*\"([a-z_]+)\"", SOURCE))
    assert logged <= first_cells("Log events")
    assert [event for event in first_cells("Log events") if f'"{event}"' not in SOURCE] == []


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    reasons = set(re.findall(r"\bPoison(?:Error)?\(\s*\"([a-z\-]+)\"", SOURCE))
    assert reasons <= first_cells("Dead letters")
    assert [reason for reason in first_cells("Dead letters") if f'"{reason}"' not in SOURCE] == []


def test_the_metrics_are_those_of_the_code_and_every_alarm_is_explained() -> None:
    named = {name.removesuffix("_total") for name in first_cells("Metrics")}
    known = set(re.findall(r"^\| `([a-z_]+)` \|", METRICS, re.MULTILINE))
    alarms = set(re.findall(r"^\| `([a-z_]+)` \| gauge \| Alarm", METRICS, re.MULTILINE))
    assert alarms <= named <= known


def test_the_problem_codes_are_in_the_catalogue() -> None:
    named = set(re.findall(r"^\| [45]\d\d `([a-z-]+)`", PAGE, re.MULTILINE))
    assert named
    assert named <= set(re.findall(r"^\| \d{3} \| `([a-z-]+)`", ERRORS, re.MULTILINE))
