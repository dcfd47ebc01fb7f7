"""`make unit` runs tests that need no server, and only those."""

import os
import subprocess
import sys
from pathlib import Path

from support.unit_marker import NOT_UNIT

ROOT = Path(__file__).parents[2]

TESTS = """
import socket, subprocess, sys
import pytest

@pytest.fixture
def postgres_url(): raise AssertionError("a server was started")

@pytest.fixture
def database_url(postgres_url): return postgres_url

def test_pure(): pass
def test_with_a_server(database_url): pass
def test_with_a_process(): subprocess.run([sys.executable, "-c", ""], check=True)
def test_with_a_port(): socket.create_server(("127.0.0.1", 0))
"""


def run_unit_tests(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "support.unit_marker", "-m", "unit", "-p", "no:randomly"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    ended = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-rA", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.stdout


def test_a_test_that_needs_a_server_is_no_unit_test_and_a_unit_test_that_starts_one_fails(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    output = run_unit_tests(tmp_path)
    assert "PASSED test_some.py::test_pure" in output
    assert "test_with_a_server" not in output
    assert "FAILED test_some.py::test_with_a_process" in output
    assert "RuntimeError: a unit test may not cause subprocess.Popen" in output
    assert "FAILED test_some.py::test_with_a_port" in output
    assert "RuntimeError: a unit test may not cause socket.bind" in output


def test_the_files_that_are_left_out_exist() -> None:
    assert [name for name in NOT_UNIT if not (ROOT / "tests" / name).exists()] == []
