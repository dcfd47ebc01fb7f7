from dataclasses import dataclass
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from outbox_relay.outcomes import Parked, Published, Refused, Report, Retry, Undelivered, decide_outcomes

WALLETS = [uuid4() for _ in range(3)]


@dataclass(frozen=True)
class Row:
    id: int
    aggregate_id: UUID
    waits: bool = False


reports = st.one_of(
    st.builds(Published, st.integers(0, 11), st.integers(0, 1000)),
    st.builds(Refused, st.just("too large")),
    st.builds(Undelivered, st.just("timed out")),
    st.none(),
)
batches = st.lists(st.tuples(st.sampled_from(WALLETS), st.booleans(), reports), max_size=30)


def decide(batch: list[tuple[UUID, bool, Report | None]]) -> tuple[list[Row], dict[int, Published | Parked | Retry]]:
    rows = [Row(row_id, wallet, waits) for row_id, (wallet, waits, _) in enumerate(batch, start=1)]
    sent = {row_id: report for row_id, (_, _, report) in enumerate(batch, start=1) if report is not None}
    return rows, decide_outcomes(rows, sent)


@given(batches)
def test_every_row_has_one_outcome(batch: list[tuple[UUID, bool, Report | None]]) -> None:
    rows, outcomes = decide(batch)
    assert list(outcomes) == [row.id for row in rows]


@given(batches)
def test_only_delivered_rows_are_published_and_where_the_broker_said(
    batch: list[tuple[UUID, bool, Report | None]],
) -> None:
    _, outcomes = decide(batch)
    for row_id, outcome in outcomes.items():
        if isinstance(outcome, Published):
            assert batch[row_id - 1][2] == Published(outcome.partition, outcome.offset)


@given(batches)
def test_no_row_of_a_wallet_is_published_after_one_that_is_not(
    batch: list[tuple[UUID, bool, Report | None]],
) -> None:
    rows, outcomes = decide(batch)
    for wallet in WALLETS:
        published = [isinstance(outcomes[row.id], Published) for row in rows if row.aggregate_id == wallet]
        assert published == sorted(published, reverse=True)


@given(batches)
def test_the_outcomes_of_a_wallet_do_not_depend_on_other_wallets(batch: list[tuple[UUID, bool, Report | None]]) -> None:
    rows, outcomes = decide(batch)
    for wallet in WALLETS:
        own = [row for row in rows if row.aggregate_id == wallet]
        sent = {row.id: report for row in own if (report := batch[row.id - 1][2]) is not None}
        assert {row.id: outcomes[row.id] for row in own} == decide_outcomes(own, sent)


def test_rows_behind_a_parked_one_are_parked_and_rows_behind_a_retried_one_retried() -> None:
    poison, away = WALLETS[:2]
    rows = [Row(1, poison), Row(2, away), Row(3, poison), Row(4, away)]
    delivered = Published(0, 7)
    outcomes = decide_outcomes(rows, {1: Refused("bad"), 2: Undelivered("away"), 3: delivered, 4: delivered})
    assert outcomes == {
        1: Parked("bad", attempts=1),
        2: Retry("away"),
        3: Parked("waits behind outbox row 1, which is parked", attempts=0),
        4: Retry("away"),
    }
