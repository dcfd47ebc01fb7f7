"""`make mutants`: known-bad variants of this system, each of which its tests must catch.

A mutant is a patch whose head says what is wrong with it and, a line each, `Caught by: TEST`. It is applied to a
copy of the tree; each of the tests it names must pass without it and fail with it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from walletctl.stack.servers import kafka_server, postgres_server

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = Path(__file__).parent
_COPIED = ("src", "tests", "alembic", "pyproject.toml", "README.md", "docs")
_PASSED, _FAILED = 0, 1


def tests_of(patch: Path) -> list[str]:
    """Return the tests that must catch the mutant."""
    return re.findall(r"^Caught by: (.+)$", patch.read_text(), re.MULTILINE)


def copied(into: Path) -> Path:
    """Copy what the tests need."""
    tree = into / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    return tree


def apply(patch: Path, tree: Path) -> None:
    """Apply the patch.

    Raises:
        subprocess.CalledProcessError: it doesn't fit any more: make it anew.
    """
    subprocess.run(["git", "apply", str(patch)], cwd=tree, check=True)


def run_tests(tree: Path, tests: Iterable[str], servers: dict[str, str], log: Path) -> int:
    """Run tests on the copy; return pytest's exit code."""
    environment = {**os.environ, **servers, "PYTHONPATH": f"{tree / 'src'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--rootdir={tree}", *tests]
    with log.open("ab") as output:
        return subprocess.run(command, cwd=tree, env=environment, stdout=output, stderr=output, check=False).returncode


def main(names: list[str]) -> int:
    """Try the mutants of these names, or all; return 0 if each was caught."""
    patches = [patch for patch in sorted(MUTANTS.glob("*.patch")) if not names or patch.stem in names]
    escaped = []
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True))
        )
        servers = {
            "TEST_DATABASE_URL": stack.enter_context(postgres_server(directory, settings={"fsync": "off"})),
            "TEST_KAFKA_BOOTSTRAP_SERVERS": stack.enter_context(kafka_server(directory)),
        }
        tests = sorted({test for patch in patches for test in tests_of(patch)})
        log = directory / "without.log"
        if run_tests(copied(directory), tests, servers, log) != _PASSED:
            print(log.read_text()[-3000:])
            print("without any mutant these tests don't pass")
            return 1
        print(f"{len(tests)} tests pass without a mutant", flush=True)
        for patch in patches:
            for test in tests_of(patch):
                tree = copied(directory)
                apply(patch, tree)
                log = directory / f"{patch.stem}.log"
                code = run_tests(tree, [test], servers, log)
                print(f"{'caught' if code == _FAILED else 'ESCAPED'}  {patch.stem}  {test}", flush=True)
                if code != _FAILED:
                    escaped.append(f"{patch.stem} (pytest ended with {code})")
                    print(log.read_text()[-1500:])
    print(
        f"{len(escaped)} of {len(patches)} escaped {escaped}" if escaped else f"all {len(patches)} mutants were caught"
    )
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
