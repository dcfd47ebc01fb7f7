import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.stats import percentile, ratios, spread

VALUES = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50)


@given(VALUES, st.floats(0, 100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], percent: float) -> None:
    found = percentile(values, percent)

    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100
    assert sum(value < found for value in values) <= len(values) * percent / 100


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs values"):
        percentile([], 50)


def test_only_what_was_measured_side_by_side_is_compared() -> None:
    assert ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="shorter"):
        ratios([4.0, 9.0], [2.0])


def test_a_spread_has_the_lowest_and_the_highest() -> None:
    assert spread([2.0, 9.0, 1.0]) == (1.0, 9.0)
