"""Velocity limits: which window a time is in, what counts, and what is refused."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.events.parts import LimitWindow
from wallet_api.hold import Hold
from wallet_api.velocity_limits import Use, VelocityLimit, counted, refusing, resets_at, use_of, window_start

NOW = datetime(2026, 11, 26, 17, 30, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def limit(**fields: Any) -> VelocityLimit:
    window = fields.get("window", "day")
    what = {"id": "a", "direction": "out", "types": (), "window": window, "amount_minor": 100, "count_max": None}
    when = {"since_version": 1, "since": LONG_AGO, "window_start": window_start(window, NOW)}
    return VelocityLimit(**{**what, **when, **fields})


def hold(**fields: Any) -> Hold:
    money = {"amount_minor": 50, "capture_max_minor": 60, "captured_minor": 0}
    rest = {"currency": "EUR", "status": "open", "expires_at": NOW + timedelta(days=7), "created_at": NOW}
    return Hold(**{"id": UUID(int=1), "wallet_id": UUID(int=2), "to_wallet_id": None, **money, **rest, **fields})


@pytest.mark.parametrize(
    ("window", "at", "start", "end"),
    [
        ("day", "2026-12-31T23:59:59.999999", "2026-12-31", "2027-01-01"),
        ("day", "2028-02-29T00:00:00", "2028-02-29", "2028-03-01"),
        # 2026-11-26 is a Thursday; ISO weeks begin on Monday, and cross the end of a year.
        ("week", "2026-11-26T17:30:00", "2026-11-23", "2026-11-30"),
        ("week", "2026-11-23T00:00:00", "2026-11-23", "2026-11-30"),
        ("week", "2027-01-01T12:00:00", "2026-12-28", "2027-01-04"),
        ("month", "2026-12-31T23:59:59.999999", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-01T00:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_a_window_is_a_day_an_iso_week_or_a_month_in_utc(window: LimitWindow, at: str, start: str, end: str) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    first = window_start(window, moment)
    assert first == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert resets_at(limit(window=window, window_start=first)) == datetime.fromisoformat(end).replace(tzinfo=UTC)


def test_a_new_window_begins_with_nothing_used_and_a_clock_that_is_set_back_begins_none_again() -> None:
    used = limit(used_minor=70, used_count=3)
    tomorrow = used.at(NOW + timedelta(days=1))
    assert (tomorrow.used_minor, tomorrow.used_count) == (0, 0)
    assert tomorrow.window_start == used.window_start + timedelta(days=1)
    assert used.at(NOW) is used
    assert tomorrow.at(NOW) is tomorrow


@pytest.mark.parametrize(
    ("fields", "use", "is_refused"),
    [
        pytest.param({}, Use("out", "TRANSFER", 100, 1), False, id="all of it"),
        pytest.param({}, Use("out", "TRANSFER", 101, 1), True, id="more than the amount"),
        pytest.param({"used_minor": 60}, Use("out", "TRANSFER", 41, 1), True, id="more than remains"),
        pytest.param({"used_minor": 200}, Use("out", "HOLD", -41, 0), False, id="a release below zero"),
        pytest.param({}, Use("in", "TRANSFER", 101, 1), False, id="the other direction"),
        pytest.param({"types": ("WITHDRAW",)}, Use("out", "TRANSFER", 101, 1), False, id="another type"),
        pytest.param({"count_max": 2, "used_count": 2}, Use("out", "TRANSFER", 1, 1), True, id="once too often"),
        pytest.param({"count_max": 2, "used_count": 2}, Use("out", "HOLD", 1, 0), False, id="what exceeds a hold"),
        pytest.param({"count_max": 2, "amount_minor": None}, Use("out", "TRANSFER", 10**18, 1), False, id="any amount"),
        pytest.param({"window": "transaction"}, Use("out", "TRANSFER", 101, 1), True, id="one transaction"),
    ],
)
def test_a_use_is_refused_if_it_is_more_than_remains(fields: dict[str, Any], use: Use, is_refused: bool) -> None:
    assert bool(refusing([limit(**fields)], use)) == is_refused


def test_a_limit_of_single_transactions_counts_nothing() -> None:
    (after,) = counted([limit(window="transaction")], Use("out", "TRANSFER", 100, 1))
    assert after.used_minor == after.used_count == 0


def test_a_release_gives_back_only_what_was_counted_in_the_window_and_since_the_limit_was_set() -> None:
    released = {
        "in the window": (limit(used_minor=50, used_count=1), hold(), (0, 0)),
        "made before the window": (limit(used_minor=50, used_count=1), hold(created_at=LONG_AGO), (50, 1)),
        "made before the limit": (limit(since=NOW, used_minor=50, used_count=1), hold(), (50, 1)),
        "captured before, in part": (limit(used_minor=50, used_count=1), hold(captured_minor=20), (20, 1)),
    }
    for name, (before, given_back, left) in released.items():
        use = use_of("HOLD", 0, -given_back.remaining_minor, given_back)
        (after,) = counted([before], use)
        assert (name, after.used_minor, after.used_count) == (name, *left)


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=6))
def test_whatever_becomes_of_a_hold_its_limit_has_what_was_captured(captures: list[tuple[int, bool]]) -> None:
    """The hold counts at first; captures count what exceeds it, and the release gives back the rest."""
    placed, captured_minor = hold(capture_max_minor=1000), 0
    limits = counted([limit(amount_minor=None, count_max=100)], use_of("HOLD", 0, 50, None))
    for amount_minor, asks_for_the_end in captures:
        if amount_minor == 0 or placed.status != "open":
            continue
        is_final = asks_for_the_end or amount_minor >= placed.remaining_minor
        released_minor = placed.remaining_minor if is_final else amount_minor
        limits = counted(limits, use_of("CAPTURE", -amount_minor, -released_minor, placed))
        captured_minor += amount_minor
        placed = hold(captured_minor=captured_minor, status="captured" if is_final else "open")
    if placed.status == "open":
        limits = counted(limits, use_of("VOID", 0, -placed.remaining_minor, placed))
    assert limits[0].used_minor == captured_minor
    assert limits[0].used_count == bool(captured_minor)
