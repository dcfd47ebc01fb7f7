from dataclasses import dataclass
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from outbox_relay.low_water import IdSnapshot, SafeIdTracker, raised_low_waters
from outbox_relay.outcomes import Published, Retry, RowOutcome


@dataclass(frozen=True)
class Row:
    id: int
    lane: int
    aggregate_id: UUID
    waits: bool = False


def test_an_id_is_not_safe_while_a_transaction_that_may_hold_it_runs() -> None:
    tracker = SafeIdTracker()
    assert tracker.observe(IdSnapshot(last_id=100, xmin=50, xmax=60)) == 0
    assert tracker.observe(IdSnapshot(last_id=200, xmin=59, xmax=90)) == 0
    assert tracker.observe(IdSnapshot(last_id=300, xmin=60, xmax=95)) == 100


def test_no_id_is_safe_that_a_database_restored_to_an_earlier_time_will_hand_out_again() -> None:
    tracker = SafeIdTracker()
    tracker.observe(IdSnapshot(last_id=100, xmin=50, xmax=50))
    assert tracker.observe(IdSnapshot(last_id=100, xmin=50, xmax=50)) == 100
    assert tracker.observe(IdSnapshot(last_id=40, xmin=70, xmax=80)) == 0
    assert tracker.observe(IdSnapshot(last_id=60, xmin=79, xmax=90)) == 0
    assert tracker.observe(IdSnapshot(last_id=60, xmin=80, xmax=90)) == 40


def test_ids_that_went_back_before_any_was_safe_are_noticed_too() -> None:
    tracker = SafeIdTracker()
    tracker.observe(IdSnapshot(last_id=100, xmin=50, xmax=60))
    assert tracker.observe(IdSnapshot(last_id=40, xmin=70, xmax=80)) == 0
    assert tracker.observe(IdSnapshot(last_id=50, xmin=75, xmax=85)) == 0
    assert tracker.observe(IdSnapshot(last_id=50, xmin=80, xmax=85)) == 40


@st.composite
def schedules(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Transactions that take a transaction id, then an outbox id, then end, with snapshots between them."""
    events: list[tuple[str, int]] = []
    for number in range(draw(st.integers(1, 8))):
        events += [("begin", number), ("take", number), ("end", number)]
    keyed = [(draw(st.integers(0, 50)), position, event) for position, event in enumerate(events)]
    begun: dict[int, int] = {}
    ordered = []
    for key, position, (kind, number) in keyed:
        begun[number] = max(begun.get(number, 0), key)
        ordered.append((begun[number], position, (kind, number)))
    snapshots = [(draw(st.integers(0, 50)), 10_000 + i, ("snapshot", i)) for i in range(draw(st.integers(1, 8)))]
    return [event for *_, event in sorted(ordered + snapshots)]


@given(schedules())
def test_no_id_up_to_the_safe_one_is_ever_committed_later(schedule: list[tuple[str, int]]) -> None:
    tracker, next_xid, next_id = SafeIdTracker(), 1, 1
    xids: dict[int, int] = {}
    ids: dict[int, int] = {}
    for kind, number in schedule:
        if kind == "begin":
            xids[number], next_xid = next_xid, next_xid + 1
        elif kind == "take":
            ids[number], next_id = next_id, next_id + 1
        elif kind == "end":
            del xids[number]
            del ids[number]
        else:
            safe_id = tracker.observe(IdSnapshot(next_id - 1, min(xids.values(), default=next_xid), next_xid))
            assert all(held > safe_id for held in ids.values())


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40),
    st.integers(0, 60),
    st.integers(1, 10),
    st.integers(1, 5),
)
def test_low_water_never_passes_a_row_that_is_left_or_unread(
    drawn: list[tuple[int, bool]], safe_id: int, lane_rows_max: int, step: int
) -> None:
    everything = [Row(row_id, lane, uuid4()) for row_id, (lane, _) in enumerate(drawn, start=1)]
    rows = [row for lane in range(4) for row in [r for r in everything if r.lane == lane][:lane_rows_max]]
    rows.sort(key=lambda row: row.id)
    outcomes: dict[int, RowOutcome] = {
        row.id: Published(0, row.id) if drawn[row.id - 1][1] else Retry("away") for row in rows
    }
    raised = raised_low_waters(
        dict.fromkeys(range(4), 0), rows, outcomes, safe_id, lane_rows_max=lane_rows_max, step=step
    )
    for lane, low_water in raised.items():
        assert step <= low_water <= safe_id
        left = [r.id for r in everything if r.lane == lane and not isinstance(outcomes.get(r.id), Published)]
        assert all(row_id > low_water for row_id in left)
