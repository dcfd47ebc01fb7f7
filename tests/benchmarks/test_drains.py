import pytest

from benchmarks import drains


def test_a_drain_is_timed_from_the_first_event_that_is_seen_to_the_last() -> None:
    curve = drains.begun([(100.0, 0.0), (100.5, 0.0), (101.0, 50.0), (102.0, 250.0), (103.0, 450.0)])

    assert curve == [(0.0, 50.0), (1.0, 250.0), (2.0, 450.0)]
    assert drains.rate(curve) == 200.0


def test_a_backlog_that_is_gone_at_the_first_sight_gives_no_rate() -> None:
    with pytest.raises(ValueError, match="larger"):
        drains.rate(drains.begun([(100.0, 0.0), (100.5, 450.0)]))
