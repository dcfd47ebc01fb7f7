from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.identifiers import LANES, POSITIONS_MAX, event_id_at, lane_of, new_id, parse_uuid

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
POSITIONS = st.integers(0, POSITIONS_MAX - 1)
MICROSECOND = timedelta(microseconds=1)


def is_uuid7(value: UUID) -> bool:
    return value.version == 7 and value.variant == RFC_4122


@given(MOMENTS, POSITIONS)
def test_an_event_id_is_a_uuid7_of_its_moment(moment: datetime, position: int) -> None:
    event_id = event_id_at(moment, position)
    assert is_uuid7(event_id)
    milliseconds = event_id.int >> 80
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds) <= moment
    assert moment < datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds + 1)


@given(st.tuples(MOMENTS, POSITIONS), st.tuples(MOMENTS, POSITIONS))
def test_event_ids_sort_by_moment_and_then_by_position(one: tuple[datetime, int], other: tuple[datetime, int]) -> None:
    if one == other:
        return
    assert (event_id_at(*one) < event_id_at(*other)) == (one < other)


@given(MOMENTS, POSITIONS, POSITIONS)
@example(datetime(2026, 1, 1, 0, 0, 0, 999, tzinfo=UTC), POSITIONS_MAX - 1, 0)
def test_one_microsecond_later_sorts_after_any_position(moment: datetime, before: int, after: int) -> None:
    assert event_id_at(moment, before) < event_id_at(moment + MICROSECOND, after)


@given(MOMENTS, st.integers(0, POSITIONS_MAX - 2))
def test_the_next_position_sorts_after_within_one_moment(moment: datetime, position: int) -> None:
    assert event_id_at(moment, position) < event_id_at(moment, position + 1)


def test_two_events_of_one_moment_and_position_differ() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert len({event_id_at(moment, 0) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("position", [-1, POSITIONS_MAX])
def test_a_position_out_of_range_is_refused(position: int) -> None:
    with pytest.raises(ValueError, match="position must be 0 to 16383"):
        event_id_at(datetime(2026, 1, 1, tzinfo=UTC), position)


def test_new_ids_are_uuid7_and_differ() -> None:
    made = [new_id() for _ in range(1000)]
    assert all(map(is_uuid7, made))
    assert len(set(made)) == 1000


@given(st.uuids())
def test_a_lane_is_one_of_the_64(aggregate_id: UUID) -> None:
    assert 0 <= lane_of(aggregate_id) < LANES


@pytest.mark.parametrize(
    ("aggregate_id", "lane"),
    [(UUID(int=0), 21), (UUID(int=1), 3), (UUID("0198c2a5-0000-7000-8000-000000000001"), 44)],
)
def test_a_wallets_lane_is_the_same_for_ever(aggregate_id: UUID, lane: int) -> None:
    assert lane_of(aggregate_id) == lane


def test_new_wallets_spread_over_all_lanes() -> None:
    assert {lane_of(new_id()) for _ in range(10_000)} == set(range(LANES))


@given(st.uuids())
def test_a_uuid_is_read_in_either_case(value: UUID) -> None:
    assert parse_uuid(str(value)) == parse_uuid(str(value).upper()) == value


@given(st.text() | st.from_regex(r"[{]?(urn:uuid:)?[0-9a-f_-]{32,36}[}]?", fullmatch=True) | st.none() | st.integers())
@example("0198c2a500007000800000000000001")
@example("0198c2a5000070008000000000000001")
@example("{0198c2a5-0000-7000-8000-000000000001}")
@example("urn:uuid:0198c2a5-0000-7000-8000-000000000001")
@example("0198c2a5-0000-7000-8000-00000000000_")
@example("0198c2a5-0000-7000-8000-000000000001\n")
@example("\uff10198c2a5-0000-7000-8000-000000000001")
@example("0198-c2a5-0000-7000-8000000000000001")
def test_a_uuid_spelled_otherwise_is_refused(value: object) -> None:
    try:
        parsed = parse_uuid(value)
    except ValueError:
        return
    assert isinstance(value, str)
    assert str(parsed) == value.lower()
