"""However the records are batched, the history is the same."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from common.events.models import TransferDone
from common.events.parts import WalletChange
from history_consumer.consumer.deduplication import RESTORED, SUPERSEDED, VERSION_CONFLICT, ExistingEvents, classify
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import Record, record_of
from history_consumer.projection import HistoryRow

# Few of each, so that they collide: (event, versions of wallet 1 and 2).
events = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))


def record(offset: int, event: tuple[int, int, int], *, source_epoch: int = 1, history_epoch: int = 1) -> Record:
    number, *versions = event
    value = TransferDone(
        event_id=UUID(int=number),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        currency="EUR",
        metadata={},
        transaction_id=UUID(int=number),
        amount="1.00",
        reference=None,
        wallets=[
            WalletChange(wallet_id=UUID(int=1), user_id="a", version=versions[0], balance_after="0", direction="out"),
            WalletChange(wallet_id=UUID(int=2), user_id="b", version=versions[1], balance_after="1", direction="in"),
        ],
    )
    headers: list[tuple[str, str | bytes | None]] = [("ce_sourceepoch", str(source_epoch).encode())]
    message = Message(offset=offset, value=value.encode().encode(), headers=headers)
    return record_of(message, Position(0, 0, "", history_epoch))


def existing_events(rows: Sequence[HistoryRow]) -> ExistingEvents:
    return ExistingEvents(
        {(row.wallet_id.int, row.wallet_version): row.event_id for row in rows},
        {(row.event_id.int, row.wallet_id.int): row.wallet_version for row in rows},
    )


def history(records: Sequence[Record], cuts: Sequence[int]) -> tuple[set[HistoryRow], int, list[int]]:
    rows: list[HistoryRow] = []
    duplicates, dead_letters = 0, []
    for start, end in pairwise([0, *sorted(cuts), len(records)]):
        classified = classify(records[start:end], existing_events(rows))
        rows += classified.rows
        duplicates += classified.duplicate_count
        dead_letters += [letter.record.offset for letter in classified.dead_letters]
        assert {letter.poison.reason for letter in classified.dead_letters} <= {VERSION_CONFLICT}
    return set(rows), duplicates, dead_letters


@given(st.lists(events, max_size=12), st.data())
def test_the_history_does_not_depend_on_the_batches(made: list[tuple[int, int, int]], data: st.DataObject) -> None:
    records = [record(offset, event) for offset, event in enumerate(made)]
    cuts = data.draw(st.lists(st.integers(0, len(records)), max_size=4))
    whole = history(records, [])
    assert history(records, cuts) == whole
    rows, duplicates, dead_letters = whole
    assert len(rows) + duplicates + 2 * len(dead_letters) == 2 * len(records)
    assert len({(row.wallet_id, row.wallet_version) for row in rows}) == len(rows)


@given(st.lists(events, max_size=12))
def test_an_event_is_applied_whole_or_not_at_all(made: list[tuple[int, int, int]]) -> None:
    rows, _, _ = history([record(offset, event) for offset, event in enumerate(made)], [])
    wallets = [{row.event_id for row in rows if row.wallet_id.int == number} for number in (1, 2)]
    assert wallets[0] == wallets[1]


@given(st.lists(events, max_size=12))
def test_rows_are_written_in_the_order_of_their_keys(made: list[tuple[int, int, int]]) -> None:
    rows = classify([record(offset, event) for offset, event in enumerate(made)], ExistingEvents()).rows
    keys = [(row.wallet_id, row.wallet_version) for row in rows]
    assert keys == sorted(keys)


@given(st.lists(events, max_size=8), st.lists(st.tuples(events, st.sampled_from([1, 3])), max_size=8))
def test_an_event_of_another_epoch_is_a_duplicate_if_the_history_has_it_and_else_a_dead_letter(
    made: list[tuple[int, int, int]], others: list[tuple[tuple[int, int, int], int]]
) -> None:
    own = [record(offset, event, source_epoch=2, history_epoch=2) for offset, event in enumerate(made)]
    rows = classify(own, ExistingEvents()).rows
    later = [record(offset, event, source_epoch=epoch, history_epoch=2) for offset, (event, epoch) in enumerate(others)]
    classified = classify(later, existing_events(rows))
    assert classified.rows == []
    known = {(row.event_id.int, row.wallet_id.int, row.wallet_version) for row in rows}
    unknown = {
        offset: SUPERSEDED if epoch == 1 else RESTORED
        for offset, ((number, one, other), epoch) in enumerate(others)
        if not {(number, 1, one), (number, 2, other)} <= known
    }
    assert {letter.record.offset: letter.poison.reason for letter in classified.dead_letters} == unknown
    assert classified.duplicate_count == 2 * (len(others) - len(unknown))
