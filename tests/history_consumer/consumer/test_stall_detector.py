"""A partition is stalled if its position does not move for 30 s before its end, with no record in hand."""

import pytest

from history_consumer.consumer.stall_detector import PATIENCE_SECONDS, PATIENCE_SECONDS_MAX, StallDetector


class Looker:
    """Calls the detector every second."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._stall_detector = StallDetector()

    def look(self, seconds: float, *, offset: int = 5, end: int = 9, idle: bool = True) -> list[int]:
        """Look for so many seconds; return the partitions that the last look found."""
        found: list[int] = []
        for _ in range(round(seconds)):
            assert not found
            self.now += 1
            found = self._stall_detector.look({0: offset, 1: 7}, {0: end, 1: 7, 2: 4}, self.now, idle=idle)
        return found


def test_a_partition_is_stalled_after_30_seconds_before_its_end_but_not_at_its_end_or_unread() -> None:
    looker = Looker()
    looker.look(1)
    assert looker.look(PATIENCE_SECONDS - 1) == []
    assert looker.look(1, end=10) == [0]


@pytest.mark.parametrize("end", [4, 9])
def test_an_end_before_the_position_which_means_lost_records_is_a_stall_too(end: int) -> None:
    looker = Looker()
    assert looker.look(PATIENCE_SECONDS + 1, end=end) == [0]


def test_time_before_the_position_moved_and_time_with_records_in_hand_do_not_count() -> None:
    looker = Looker()
    assert looker.look(PATIENCE_SECONDS) == []
    assert looker.look(PATIENCE_SECONDS, offset=6) == []
    assert looker.look(100, offset=6, idle=False) == []
    assert looker.look(1, offset=6) == [0]


def test_a_process_that_was_frozen_finds_no_stall_when_it_wakes_up() -> None:
    looker = Looker()
    assert looker.look(2) == []
    looker.now += 3600
    assert looker.look(2) == []


def test_a_stall_that_a_new_client_does_not_end_is_found_at_growing_intervals() -> None:
    looker, patience_seconds = Looker(), PATIENCE_SECONDS
    while patience_seconds < PATIENCE_SECONDS_MAX:
        assert looker.look(patience_seconds + 1) == [0]
        patience_seconds *= 2
    assert looker.look(PATIENCE_SECONDS_MAX + 1) == [0]
    assert looker.look(1, end=5) == []
    assert looker.look(PATIENCE_SECONDS + 1) == [0]
