import logging
import os
import pty
import subprocess
import sys

import pytest

from common import logs

SCRIPT = r"""
import structlog
from common.logs import configure_logs
from common.settings import LogSettings

configure_logs(LogSettings(log_format=FORMAT), "test")
log = structlog.get_logger()
log.info("seen", user="a\x1b[31mb\x9b\u202e\x7f", nested=["\x1b[31m"])
try:
    raise ValueError("\x1b]0;x\x07")
except ValueError:
    log.exception("failed")
"""


def logged(form: str, *, terminal: bool = False, **environment: str) -> str:
    """Return what a process writes to a file or a terminal."""
    clean = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    environment = {**clean, "TERM": "xterm", **environment}
    command = [sys.executable, "-c", SCRIPT.replace("FORMAT", repr(form))]
    if not terminal:
        return subprocess.run(command, env=environment, stderr=subprocess.PIPE, check=True).stderr.decode()
    ours, theirs = pty.openpty()
    try:
        child = subprocess.Popen(command, env=environment, stderr=theirs)
        os.close(theirs)
        output = b""
        # When the child has ended, Linux raises EIO.
        try:
            while chunk := os.read(ours, 65536):
                output += chunk
        except OSError:
            pass
        assert child.wait(30) == 0
    finally:
        os.close(ours)
    return output.decode()


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (False, {}, False),
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_only_a_terminal_gets_colours_and_no_color_is_honoured(
    terminal: bool, environment: dict[str, str], coloured: bool
) -> None:
    assert ("\x1b[" in logged("console", terminal=terminal, **environment)) == coloured


@pytest.mark.parametrize("form", ["json", "console"])
def test_control_characters_from_outside_are_logged_as_escapes(form: str) -> None:
    lines = logged(form)
    assert not {"\x1b", "\x9b", "\x07", "\u202e", "\x7f"} & set(lines)
    assert "31m" in lines
    assert "ValueError" in lines


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock in seconds, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr("common.rate_limited_logs.monotonic", lambda: now[0])
    return now


def test_a_librarys_warning_is_logged_once_in_five_seconds_and_its_information_always(
    clock: list[float],
) -> None:
    repetitions = logs._RepetitionFilter(logging.WARNING)

    def passes(level: int, text: str) -> int | None:
        record = logging.LogRecord("uvicorn.error", level, "", 0, text, None, None)
        return getattr(record, "suppressed", 0) if repetitions.filter(record) else None

    assert [passes(logging.WARNING, f"Invalid HTTP request {number}.") for number in range(3)] == [0, None, None]
    assert passes(logging.WARNING, "Another line.") == 0
    clock[0] += 5
    assert passes(logging.WARNING, "Invalid HTTP request 9.") == 2
    assert [passes(logging.INFO, f"Started server process [{number}]") for number in range(3)] == [0, 0, 0]


def test_the_level_of_the_newest_configuration_holds_for_a_logger_that_has_been_used() -> None:
    script = """
import structlog
from common.logs import configure_logs
from common.settings import LogSettings

log = structlog.get_logger()
for level in ("error", "warning"):
    configure_logs(LogSettings(log_level=level, log_format="json"), "test")
    log.warning(f"at_level_{level}")
"""
    output = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=True).stderr
    assert "at_level_warning" in output
    assert "at_level_error" not in output
