"""The command line's output, in real processes: a reader that has gone, a full disk, a terminal without UTF-8."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.command_lines import WalletCtl
from walletctl.console import Exit

COMMAND = [sys.executable, "-m", "walletctl"]
NEEDS_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def run_without_a_reader(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command whose standard output is a pipe without a reader."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, *arguments], env=environment, stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("arguments", [["--help"], ["outbox", "list", "--help"], ["db", "status"]], ids=" ".join)
def test_a_reader_that_has_gone_is_no_error(operator_url: str, arguments: list[str]) -> None:
    assert run_without_a_reader(*arguments, DATABASE_URL=operator_url) == (Exit.OK, "")


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_the_exit_code_tells_the_result_even_without_a_reader(
    operator_url: str, empty_database_url: str, form: list[str]
) -> None:
    """As with `verify | head`: exit code 1 means that there is a difference, and nothing else."""
    status = ["db", "status", *form]
    assert run_without_a_reader(*status, DATABASE_URL=operator_url) == (Exit.OK, "")
    assert run_without_a_reader(*status, DATABASE_URL=empty_database_url) == (Exit.FOUND_WRONG, "")


@NEEDS_FULL
@pytest.mark.parametrize("arguments", [["--help"], ["db", "status"], ["db", "status", "--json"]], ids=" ".join)
def test_a_full_disk_is_one_line_that_names_the_stream_and_no_server(operator_url: str, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            env={"DATABASE_URL": operator_url},
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == Exit.USAGE
    (line,) = done.stderr.decode().splitlines()
    assert "standard output: No space left on device" in line


def test_a_closed_standard_output_is_no_error(operator_url: str) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "db", "status", "--json"]
    done = subprocess.run(command, env={"DATABASE_URL": operator_url}, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (Exit.OK, b"")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("arguments", [["--help"], ["stack", "up", "--help"], ["outbox", "list", "--limit", "ö"]])
def test_a_terminal_without_utf_8_shows_escapes(encoding: str, arguments: list[str]) -> None:
    done = subprocess.run([*COMMAND, *arguments], env={"PYTHONIOENCODING": encoding}, capture_output=True, check=False)
    assert done.returncode == (Exit.OK if "--help" in arguments else Exit.USAGE)
    assert b"Traceback" not in done.stderr
    said = (done.stdout + done.stderr).decode(encoding)
    if arguments == ["--help"]:
        assert ("·" in said) == (encoding != "ascii")


@pytest.mark.parametrize(
    ("before", "argument"),
    [([], "\x1b[31m"), (["outbox", "list", "--type"], "a\x9bb"), (["outbox", "show"], "\u202ea")],
    ids=ascii,
)
def test_an_argument_with_control_characters_is_refused_before_the_command_runs(
    walletctl: WalletCtl, before: list[str], argument: str
) -> None:
    """Error messages quote arguments, and the audit table keeps them."""
    done = walletctl(*before, argument)
    assert done.returncode == Exit.USAGE
    assert not set(argument) & {"\x1b", "\x9b", "\x7f", "\u202e"} & set(done.stderr)
    (line,) = done.stderr.splitlines()
    assert f"argument {len(before) + 1} has control characters" in line


def test_an_argument_that_is_not_text_is_refused() -> None:
    done = subprocess.run([*COMMAND, "outbox", "list", "--type", b"\xff"], capture_output=True, env={}, check=False)
    assert done.returncode == Exit.USAGE
    assert "argument 4 has control characters or isn't text" in done.stderr.decode()
