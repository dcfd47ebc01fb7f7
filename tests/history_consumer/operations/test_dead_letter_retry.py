"""A retry applies a dead letter exactly once if its cause is gone; else the dead letter stays, with its reason now."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from confluent_kafka import Message
from sqlalchemy.ext.asyncio import AsyncEngine

from common.events.models import AnyEvent
from history_consumer.consumer import records
from history_consumer.consumer.batch_writes import Target, write_batch
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import record_of
from history_consumer.operations.dead_letter_retry import RetryResult, retry_dead_letters
from history_consumer.projection import PoisonError, rows_of
from support.history_events import History, Wallet

Rows = Callable[..., Awaitable[list[Any]]]

LETTERS = 'SELECT "offset", reason FROM history.dead_letters ORDER BY id'
VERSIONS = "SELECT wallet_version FROM history.transaction_events WHERE wallet_id = :id ORDER BY 1"
PROGRESS = "SELECT event_count, max_version FROM history.wallet_progress WHERE wallet_id = :id"
POSITIONS = "SELECT * FROM history.processed_offsets"


async def retry(operator: AsyncEngine, **selection: Any) -> RetryResult:
    total = RetryResult()
    async for done in retry_dead_letters(operator, **selection):
        total.add(done)
    return total


@pytest.fixture
def older_consumer(history: History, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[None]]:
    """Write events as an older consumer does, to which transfers are an unknown type."""

    def unknowing(value: bytes | None) -> Any:
        if b"TRANSFER_DONE" in (value or b""):
            raise PoisonError("unknown-type", "TRANSFER_DONE")
        return rows_of(value)

    async def add(*events: AnyEvent) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(records, "rows_of", unknowing)
            await history.add(*events)

    return add


async def test_dead_letters_of_a_type_that_is_known_by_now_are_applied_once_and_deleted(
    operator: AsyncEngine, rows: Rows, older_consumer: Callable[..., Awaitable[None]]
) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    events = [ada.created(), bob.created(), ada.funded(), ada.sent(bob), ada.sent(bob), ada.funded()]
    await older_consumer(*events)
    positions = await rows(POSITIONS)
    assert await rows(LETTERS) == [(3, "unknown-type"), (4, "unknown-type")]
    first = (await rows("SELECT min(id) FROM history.dead_letters"))[0][0]
    one = await retry(operator, dead_letter_id=first)
    assert (one.count, one.applied, one.duplicates, one.left.total()) == (1, 1, 0, 0)
    rest = await retry(operator, reason="unknown-type")
    assert (rest.count, rest.applied) == (1, 1)
    assert await rows(LETTERS) == []
    assert await rows(VERSIONS, id=ada.id) == [(1,), (2,), (3,), (4,), (5,)]
    assert await rows(PROGRESS, id=ada.id) == [(5, 5)]
    assert await rows(PROGRESS, id=bob.id) == [(3, 3)]
    assert await rows(POSITIONS) == positions
    assert (await retry(operator)).count == 0


async def test_a_dead_letter_whose_event_the_history_has_is_a_duplicate_and_is_deleted(
    operator: AsyncEngine, history: History, rows: Rows, older_consumer: Callable[..., Awaitable[None]]
) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    events: list[AnyEvent] = [ada.created(), bob.created(), ada.funded(), ada.sent(bob)]
    await older_consumer(*events)
    await history.add(*events)
    done = await retry(operator)
    assert (done.count, done.applied, done.duplicates) == (1, 0, 1)
    assert await rows(LETTERS) == []
    assert await rows(PROGRESS, id=ada.id) == [(3, 3)]


async def test_a_dead_letter_that_still_cannot_be_applied_stays_with_its_reason_now(
    operator: AsyncEngine, consumer_engine: AsyncEngine, history: History, rows: Rows
) -> None:
    ada = Wallet()
    created = ada.created()
    await history.add(created, Wallet("eve", ada.id).created())
    await rows("UPDATE history.dead_letters SET reason = 'yesterday', detail = 'yesterday'")
    assert history.position
    poison = record_of(
        Message(topic="topic", offset=2, key=b"k", value=b"\xff{"), Position(0, 2, history.position.topic_id)
    )
    await write_batch(consumer_engine, Target("tests", "topic"), [poison])
    done = await retry(operator)
    assert (done.count, done.applied, done.conflicts) == (2, 0, 1)
    assert await rows(LETTERS) == [(1, "version-conflict"), (2, "not-json")]
    assert await rows("SELECT event_id FROM history.transaction_events") == [(created.event_id,)]


async def test_a_dead_letter_that_the_database_refuses_delays_no_other(
    operator: AsyncEngine, rows: Rows, older_consumer: Callable[..., Awaitable[None]]
) -> None:
    ada, bob, mallory = Wallet("ada"), Wallet("bob"), Wallet("mallory")
    events: list[AnyEvent] = [wallet.created() for wallet in (ada, bob)]
    events += [ada.funded(), ada.sent(mallory), ada.sent(bob)]
    await older_consumer(*events)
    await rows("ALTER TABLE history.transaction_events ADD CONSTRAINT strange CHECK (user_id <> 'mallory')")
    done = await retry(operator)
    assert (done.count, done.applied) == (2, 1)
    assert await rows(LETTERS) == [(3, "refused-by-database")]
    await rows("ALTER TABLE history.transaction_events DROP CONSTRAINT strange")
    assert (await retry(operator)).applied == 1
    assert await rows(PROGRESS, id=ada.id) == [(4, 4)]


async def test_a_dead_letter_of_another_epoch_is_deleted_only_if_the_history_has_its_event(
    operator: AsyncEngine, history: History, rows: Rows, older_consumer: Callable[..., Awaitable[None]]
) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    events: list[AnyEvent] = [ada.created(), bob.created(), ada.funded(), ada.sent(bob), ada.sent(bob)]
    await older_consumer(*events)
    stand_at = "UPDATE history.processed_offsets SET source_epoch = :epoch"
    await rows(stand_at, epoch=0)
    assert (await retry(operator)).left == {"restored": 2}
    await rows(stand_at, epoch=2)
    assert (await retry(operator)).left == {"superseded": 2}
    await rows(stand_at, epoch=1)
    await history.add(events[3])
    await rows(stand_at, epoch=2)
    done = await retry(operator)
    assert (done.applied, done.duplicates, done.left) == (0, 1, {"superseded": 1})
    assert await rows(PROGRESS, id=ada.id) == [(3, 3)]
