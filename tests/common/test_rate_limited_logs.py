import pytest
import structlog
from structlog.testing import LogCapture

from common.rate_limited_logs import RateLimitedLog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock in seconds, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr("common.rate_limited_logs.monotonic", lambda: now[0])
    return now


@pytest.fixture
def seen() -> LogCapture:
    return LogCapture()


@pytest.fixture
def log(seen: LogCapture) -> RateLimitedLog:
    return RateLimitedLog(
        structlog.wrap_logger(None, processors=[seen], wrapper_class=structlog.make_filtering_bound_logger(0))
    )


def test_a_line_that_each_request_causes_is_written_once_in_five_seconds_with_the_count_of_the_suppressed(
    log: RateLimitedLog, seen: LogCapture, clock: list[float]
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
    log: RateLimitedLog, seen: LogCapture, clock: list[float]
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


def test_the_number_of_remembered_kinds_is_bounded(log: RateLimitedLog, clock: list[float]) -> None:
    assert clock
    for number in range(3000):
        event = f"event-{number}"
        log.warning(event, error=None)
    assert len(log._limiter._admitted) <= 1000
