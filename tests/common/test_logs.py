import logging
import os
import pty
import subprocess
import sys

import pytest
import structlog
from structlog.testing import LogCapture

from common import logs
from common.logs import BoundedLog

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
    """Return what a process logs to a file or to a terminal."""
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
        # At its end Linux says EIO.
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
def test_nothing_from_outside_is_logged_raw(form: str) -> None:
    lines = logged(form)
    assert not {"\x1b", "\x9b", "\x07", "\u202e", "\x7f"} & set(lines)
    assert "31m" in lines
    assert "ValueError" in lines


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set."""
    now = [1000.0]
    monkeypatch.setattr("common.logs.monotonic", lambda: now[0])
    return now


@pytest.fixture
def seen() -> LogCapture:
    return LogCapture()


@pytest.fixture
def log(seen: LogCapture) -> BoundedLog:
    return BoundedLog(
        structlog.wrap_logger(None, processors=[seen], wrapper_class=structlog.make_filtering_bound_logger(0))
    )


def test_a_line_that_each_request_causes_is_written_once_in_five_seconds_and_counts_the_others(
    log: BoundedLog, seen: LogCapture, clock: list[float]
) -> None:
    for _ in range(320):
        log.warning("request_failed_server_away", error=OSError("away"), path="/wallets")
        clock[0] += 1 / 16
    assert [(entry["event"], entry["suppressed"]) for entry in seen.entries] == [
        ("request_failed_server_away", count) for count in (0, 79, 79, 79)
    ]
    assert seen.entries[0]["error"] == "OSError('away')"
    assert seen.entries[0]["path"] == "/wallets"


def test_another_event_and_another_error_have_a_line_of_their_own(
    log: BoundedLog, seen: LogCapture, clock: list[float]
) -> None:
    assert clock
    for _ in range(3):
        log.warning("request_failed", error=OSError())
        log.defect("request_failed", error=ValueError())
        log.defect("batch_lost", error=ValueError())
    assert [(entry["event"], entry["log_level"]) for entry in seen.entries] == [
        ("request_failed", "warning"),
        ("request_failed", "error"),
        ("batch_lost", "error"),
    ]
    assert isinstance(seen.entries[1]["exc_info"], ValueError)


def test_the_kinds_that_are_remembered_are_bounded(log: BoundedLog, clock: list[float]) -> None:
    assert clock
    for number in range(3000):
        event = f"event-{number}"
        log.warning(event, error=None)
    assert len(log._rate._passed) <= 1000


def test_a_library_repeats_no_line_within_five_seconds_and_what_it_says_of_itself_is_let_through(
    clock: list[float],
) -> None:
    repetitions = logs._Repetitions(logging.WARNING)

    def passes(level: int, text: str) -> int | None:
        record = logging.LogRecord("uvicorn.error", level, "", 0, text, None, None)
        return getattr(record, "suppressed", 0) if repetitions.filter(record) else None

    assert [passes(logging.WARNING, f"Invalid HTTP request {number}.") for number in range(3)] == [0, None, None]
    assert passes(logging.WARNING, "Another line.") == 0
    clock[0] += 5
    assert passes(logging.WARNING, "Invalid HTTP request 9.") == 2
    assert [passes(logging.INFO, f"Started server process [{number}]") for number in range(3)] == [0, 0, 0]
