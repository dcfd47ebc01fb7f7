import pytest

from tools.release_notes import release_notes

CHANGELOG = """\
# Changelog

## Unreleased

### Added

- Not yet.

## 0.2.0 - 2026-11-30

### Added

- One image for all processes.

## 0.1.0 - 2026-01-02
"""


def test_the_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    assert release_notes("v0.2.0", "0.2.0", CHANGELOG) == "### Added\n\n- One image for all processes.\n"


@pytest.mark.parametrize(
    ("tag", "version", "problem"),
    [
        ("v0.3.0", "0.2.0", r"the tag is v0\.3\.0, and pyproject\.toml has version 0\.2\.0"),
        ("0.2.0", "0.2.0", "the tag is 0.2.0"),
        ("v0.3.0", "0.3.0", r"no section '## 0\.3\.0 - YYYY-MM-DD'"),
        ("v0.1.0", "0.1.0", "no section .* with entries"),
        ("v0.2", "0.2", "no section"),
        ("vUnreleased", "Unreleased", "no section"),
    ],
)
def test_a_tag_without_its_version_or_section_makes_no_release(tag: str, version: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        release_notes(tag, version, CHANGELOG)
