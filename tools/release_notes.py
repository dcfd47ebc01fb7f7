"""Prints the section of CHANGELOG.md that a release's tag names: `python -m tools.release_notes v0.2.0`."""

import argparse
import re
import sys
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def release_notes(tag: str, version: str, changelog: str) -> str:
    """Return the changelog's section of a version.

    Args:
        tag: `v` and the version.
        version: the package's.
        changelog: its sections begin with `## 0.2.0 - 2026-11-30`, as Keep a Changelog has them.

    Raises:
        ValueError: the tag is not the version's, or no dated section has that version.
    """
    if tag != f"v{version}":
        raise ValueError(
            f"the tag is {tag}, and pyproject.toml has version {version}: tag v{version}, or set the version"
        )
    heading = rf"^## \[?{re.escape(version)}\]? - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)"
    section = re.search(heading, changelog, re.MULTILINE | re.DOTALL)
    if section is None or not section[1].strip():
        raise ValueError(
            f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD' with entries: write it, then tag anew"
        )
    return section[1].strip() + "\n"


def main() -> None:
    """Print the notes, or one line that says what is missing (exit 2)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag", help="such as v0.2.0")
    tag = parser.parse_args().tag
    version = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"]
    try:
        sys.stdout.write(release_notes(tag, version, (_ROOT / "CHANGELOG.md").read_text()))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
