from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.http.token_buckets import TokenBuckets


@dataclass
class Clock:
    seconds: float = 1e6

    def __call__(self) -> int:
        return round(self.seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket_allows_its_burst_then_one_request_for_each_interval(clock: Clock) -> None:
    buckets = TokenBuckets(per_second=2, burst=3, clock_ns=clock)
    assert [buckets.take("a").left for _ in range(3)] == [2, 1, 0]
    assert buckets.take("a").wait_seconds == pytest.approx(0.5)
    clock.seconds += 0.5
    assert buckets.take("a").wait_seconds == 0
    assert buckets.take("a").wait_seconds == pytest.approx(0.5)


def test_a_refused_request_costs_nothing_so_a_client_that_goes_on_still_gets_its_rate(clock: Clock) -> None:
    buckets = TokenBuckets(per_second=10, burst=1, clock_ns=clock)
    allowed = 0
    for _ in range(1001):
        allowed += buckets.take("a").wait_seconds == 0
        clock.seconds += 0.01
    assert allowed == pytest.approx(101, abs=1)


def test_one_key_takes_nothing_from_another(clock: Clock) -> None:
    buckets = TokenBuckets(per_second=1, burst=1, clock_ns=clock)
    assert buckets.take("a").wait_seconds == 0
    assert buckets.take("a").wait_seconds > 0
    assert buckets.take("b").wait_seconds == 0


def test_asking_for_the_wait_takes_no_token(clock: Clock) -> None:
    buckets = TokenBuckets(per_second=1, burst=1, clock_ns=clock)
    assert [buckets.wait_seconds("a") for _ in range(5)] == [0] * 5
    buckets.take("a")
    assert buckets.wait_seconds("a") == pytest.approx(1)


def test_a_bucket_says_when_it_is_full_again(clock: Clock) -> None:
    buckets = TokenBuckets(per_second=2, burst=4, clock_ns=clock)
    buckets.take("a")
    assert buckets.take("a").full_seconds == pytest.approx(1)


def test_a_million_keys_are_not_remembered(clock: Clock) -> None:
    buckets = TokenBuckets(per_second=0.001, burst=1, keys_max=1000, clock_ns=clock)
    for number in range(100_000):
        buckets.take(number)
    assert len(buckets._full_at_ns) + len(buckets._older_full_at_ns) <= 2000
    assert buckets.take(99_999).wait_seconds > 0


@given(
    per_second=st.floats(0.1, 1000),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=80),
)
def test_no_window_has_more_requests_than_the_burst_and_the_rate_allow(
    per_second: float, burst: int, pauses: list[float]
) -> None:
    clock = Clock()
    buckets = TokenBuckets(per_second, burst, clock_ns=clock)
    times = []
    for pause in pauses:
        clock.seconds += pause
        if buckets.take("a").wait_seconds == 0:
            times.append(clock.seconds)
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - start) * per_second + 1e-6
