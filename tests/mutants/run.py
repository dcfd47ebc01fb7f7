"""`make mutants`: variants of this system with a known defect, each of which the tests must catch.

A mutant is a patch. Its head says what is wrong, and has lines `Caught by: TEST` or `Caught by the fault suite: FAULT,
FAULT`. The runner applies it to a copy of the tree. Each test must pass without the patch and fail with it. The fault
suite must fail by a difference that its checkers found.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A script finds modules beside itself, and `tools` is at the root.
sys.path.insert(0, str(ROOT))

from tools.servers import kafka_server, postgres_server  # noqa: E402 - found by the line above

MUTANTS = Path(__file__).parent
_COPIED = ("src", "tests", "tools", "alembic", "pyproject.toml", "README.md", "docs")
_PASSED, _FAILED = 0, 1
_SUITE = "tests/faults/test_faults.py"
_SUITE_SECONDS = 40
_SEED = 1


@dataclass(frozen=True)
class Catcher:
    """Tests that must fail on a mutant.

    Attributes:
        tests: as pytest takes them.
        faults: the names of the faults, where the tests are the fault suite.
    """

    tests: tuple[str, ...]
    faults: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return " ".join(self.tests) + (f" ({', '.join(sorted(self.faults))})" if self.faults else "")

    def run(self, tree: Path, servers: dict[str, str], log: Path) -> int:
        """Run the tests on the copy; return pytest's exit code, negated for a failure that no checker found."""
        environment = {**os.environ, **servers, "PYTHONPATH": f"{tree / 'src'}"}
        if self.faults:
            seconds = _SUITE_SECONDS * max(1, len(self.faults) // 3)
            environment |= {"FAULTS_ONLY": ",".join(self.faults), "FAULTS_SECONDS": str(seconds)}
            environment |= {"FAULTS_SEED": str(_SEED)}
        options = ["-q", "-x", "-m", "", "-p", "no:cacheprovider", f"--rootdir={tree}"]
        with log.open("wb") as output:
            code = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *self.tests],
                cwd=tree,
                env=environment,
                stdout=output,
                stderr=output,
                check=False,
            ).returncode
        is_judged = not self.faults or re.search(r"seed \d+: \d+ differences", log.read_text()) is not None
        return code if code != _FAILED or is_judged else -code


def catchers_of(patch: Path) -> list[Catcher]:
    """Return the tests that must catch the mutant."""
    tests, suite = re.findall(r"^Caught by: (.+)$", text := patch.read_text(), re.MULTILINE), None
    if found := re.search(r"^Caught by the fault suite: (.+)$", text, re.MULTILINE):
        suite = Catcher((_SUITE,), frozenset(found[1].split(", ")))
    return [*(Catcher((test,)) for test in tests), *([suite] if suite else [])]


def copied(into: Path) -> Path:
    """Copy the files that the tests need."""
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
        subprocess.CalledProcessError: the patch no longer applies: make it again.
    """
    subprocess.run(["git", "apply", str(patch)], cwd=tree, check=True)


def main(names: list[str]) -> int:
    """Run the mutants of these names, or all; return 0 if each was caught, 2 for a name that no mutant has."""
    if unknown := set(names) - {patch.stem for patch in MUTANTS.glob("*.patch")}:
        print(f"no mutant has the name {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
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
        all_catchers = [catcher for patch in patches for catcher in catchers_of(patch)]
        tests = sorted({test for catcher in all_catchers for test in catcher.tests if not catcher.faults})
        faults = frozenset[str]().union(*(catcher.faults for catcher in all_catchers))
        for catcher in [Catcher(tuple(tests)), *([Catcher((_SUITE,), faults)] if faults else [])]:
            log = directory / "without.log"
            if catcher.run(copied(directory), servers, log) != _PASSED:
                print(log.read_text()[-3000:])
                print(f"fails without a mutant: {catcher}")
                return 1
            print(f"passes without a mutant: {catcher}", flush=True)
        for patch in patches:
            for catcher in catchers_of(patch):
                tree = copied(directory)
                apply(patch, tree)
                log = directory / f"{patch.stem}.log"
                code = catcher.run(tree, servers, log)
                print(f"{'caught' if code == _FAILED else 'ESCAPED'}  {patch.stem}  {catcher}", flush=True)
                if code != _FAILED:
                    escaped.append(f"{patch.stem} (pytest ended with {code})")
                    print(log.read_text()[-1500:])
    print(
        f"{len(escaped)} of {len(patches)} escaped {escaped}" if escaped else f"all {len(patches)} mutants were caught"
    )
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
