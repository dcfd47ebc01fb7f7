"""Each event takes effect exactly once, whatever happens to the consumer, the group, the topic or the database."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine

from common.events.models import AnyEvent
from common.kafka.connection import KafkaConnection
from common.kafka.topics import ensure_topic
from common.postgres.engine import create_engine
from common.worker import Health, TemporaryError
from history_consumer.consumer import batch_writes, stall_detector
from history_consumer.consumer import consumer as consumer_module
from history_consumer.consumer.consumer import HistoryConsumer
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import end_of, record_of
from history_consumer.operations.status import Broker, history_status
from history_consumer.run import consume
from history_consumer.settings import ConsumerSettings
from support.foreign_transactions import ForeignProducer
from support.history_events import TRACEPARENT, Topic, Wallet
from support.history_pipeline import HistoryPipeline

Eventually = Callable[..., Awaitable[Any]]

HISTORY = "SELECT wallet_id, wallet_version, event_id, event_type FROM history.transaction_events ORDER BY 1, 2"


async def drive(
    consumers: HistoryConsumer | Sequence[HistoryConsumer],
    until: Callable[[], Awaitable[Any]],
    *,
    failures: list[TemporaryError] | None = None,
) -> None:
    """Run the consumers' steps until the condition holds; their failures end the test, or go to `failures`."""

    async def step(consumer: HistoryConsumer) -> None:
        try:
            await consumer.run_once()
        except TemporaryError as error:
            if failures is None:
                raise
            failures.append(error)

    several = [consumers] if isinstance(consumers, HistoryConsumer) else consumers
    async with asyncio.timeout(40):
        while not await until():
            await asyncio.gather(*map(step, several))


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"history_{name}", labels) or 0.0


async def test_events_become_rows_of_each_wallet_they_touched(pipeline: HistoryPipeline) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    made: list[AnyEvent] = [ada.created(), bob.created(), ada.funded(), ada.sent(bob), bob.sent(ada)]
    pipeline.topic.produce(*made)
    await drive(pipeline.new_consumer(), pipeline.reached(5))
    history = await pipeline.rows(HISTORY)
    assert [row[1:] for row in history if row[0] == ada.id] == [
        (1, made[0].event_id, "WALLET_CREATED"),
        (2, made[2].event_id, "WALLET_FUNDED"),
        (3, made[3].event_id, "TRANSFER_SENT"),
        (4, made[4].event_id, "TRANSFER_RECEIVED"),
    ]
    assert [row[1] for row in history if row[0] == bob.id] == [1, 2, 3]
    assert await pipeline.rows(
        "SELECT event_count, max_version, user_id FROM history.wallet_progress ORDER BY user_id"
    ) == [
        (4, 4, "ada"),
        (3, 3, "bob"),
    ]


async def test_an_event_delivered_again_at_another_offset_takes_effect_once(pipeline: HistoryPipeline) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    made: list[AnyEvent] = [ada.created(), bob.created(), ada.funded(), ada.sent(bob)]
    pipeline.topic.produce(*made, *made)
    consumer = pipeline.new_consumer(consumer_batch_records=3)
    duplicates = metric("rows_total", outcome="duplicate")
    await drive(consumer, pipeline.reached(8))
    pipeline.topic.produce(*made)
    await drive(consumer, pipeline.reached(12))
    assert len(await pipeline.rows(HISTORY)) == 5
    assert await pipeline.rows("SELECT sum(event_count) FROM history.wallet_progress") == [(5,)]
    assert await pipeline.rows("SELECT count(*) FROM history.dead_letters") == [(0,)]
    assert metric("rows_total", outcome="duplicate") - duplicates == 10


async def test_poison_is_dead_lettered_whole_and_the_records_after_it_are_applied(pipeline: HistoryPipeline) -> None:
    ada = Wallet()
    pipeline.topic.produce(ada.created(), b"\xff\x00{", None, b'{"event_type": "A\\u0000"}', ada.funded())
    await drive(pipeline.new_consumer(), pipeline.reached(5))
    assert [row[1] for row in await pipeline.rows(HISTORY)] == [1, 2]
    letters = await pipeline.rows('SELECT "offset", reason, key, value, headers FROM history.dead_letters ORDER BY 1')
    assert [letter[:2] for letter in letters] == [(1, "not-json"), (2, "tombstone"), (3, "unknown-type")]
    assert letters[0][2:4] == (b"k\xff", b"\xff\x00{")
    assert letters[1][3] is None
    assert letters[0][4] == [["traceparent", TRACEPARENT], ["odd", {"base64": "/w=="}], ["none", None]]


async def test_a_second_event_at_one_version_is_an_alarm_and_is_applied_nowhere(pipeline: HistoryPipeline) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    first: list[AnyEvent] = [ada.created(), bob.created(), ada.funded()]
    pipeline.topic.produce(*first)
    consumer = pipeline.new_consumer()
    await drive(consumer, pipeline.reached(3))
    conflicts = metric("conflicts_total")
    forged = Wallet("ada", ada.id, version=1, balance=ada.balance)
    wrong = forged.sent(Wallet("bob", bob.id, version=1))
    pipeline.topic.produce(wrong, bob.funded(), wrong)
    await drive(consumer, pipeline.reached(6))
    assert metric("conflicts_total") - conflicts == 2
    assert await pipeline.rows('SELECT "offset", reason FROM history.dead_letters ORDER BY 1') == [
        (3, "version-conflict"),
        (5, "version-conflict"),
    ]
    assert [row[2] for row in await pipeline.rows(HISTORY) if row[0] == ada.id] == [
        first[0].event_id,
        first[2].event_id,
    ]
    assert [row[3] for row in await pipeline.rows(HISTORY) if row[0] == bob.id] == ["WALLET_CREATED", "WALLET_FUNDED"]


async def test_conflicts_inside_one_batch_leave_the_first_event(pipeline: HistoryPipeline) -> None:
    ada = Wallet()
    created = ada.created()
    twin = Wallet("ada", ada.id)
    moved = created.model_copy(update={"wallets": [created.wallets[0].model_copy(update={"version": 9})]})
    funded = ada.funded()
    pipeline.topic.produce(created, twin.created(), moved, funded)
    await drive(pipeline.new_consumer(), pipeline.reached(4))
    assert [row[1:3] for row in await pipeline.rows(HISTORY)] == [(1, created.event_id), (2, funded.event_id)]
    assert await pipeline.rows('SELECT "offset", reason FROM history.dead_letters ORDER BY 1') == [
        (1, "version-conflict"),
        (2, "version-conflict"),
    ]


async def test_a_record_that_only_the_database_refuses_is_dead_lettered_too(pipeline: HistoryPipeline) -> None:
    await pipeline.rows("ALTER TABLE history.transaction_events ADD CONSTRAINT strange CHECK (user_id <> 'mallory')")
    ada, mallory, bob = Wallet("ada"), Wallet("mallory"), Wallet("bob")
    pipeline.topic.produce(ada.created(), mallory.created(), bob.created())
    await drive(pipeline.new_consumer(), pipeline.reached(3))
    assert len(await pipeline.rows(HISTORY)) == 2
    letters = await pipeline.rows('SELECT "offset", reason, detail FROM history.dead_letters')
    assert [letter[:2] for letter in letters] == [(1, "refused-by-database")]
    assert "strange" in letters[0][2]


async def test_a_consumer_whose_partition_was_taken_over_writes_nothing_and_joins_again(
    pipeline: HistoryPipeline,
) -> None:
    ada = Wallet()
    pipeline.topic.produce(ada.created())
    consumer = pipeline.new_consumer()
    await drive(consumer, pipeline.reached(1))
    takeovers = metric("takeovers_total")
    failures: list[TemporaryError] = []
    # Another consumer has applied the record at offset 1, so this one must not apply it.
    await pipeline.rows("UPDATE history.processed_offsets SET next_offset = 2 WHERE next_offset = 1")
    pipeline.topic.produce(ada.funded(), ada.funded())
    await drive(consumer, pipeline.reached(3), failures=failures)
    assert metric("takeovers_total") - takeovers == 1
    assert [str(error) for error in failures] == ["kafka: another consumer moved partition 0"]
    assert [row[1] for row in await pipeline.rows(HISTORY)] == [1, 3]


async def test_a_restarted_consumer_starts_at_the_position_in_the_database(
    pipeline: HistoryPipeline, consumer_settings: ConsumerSettings
) -> None:
    ada = Wallet()
    pipeline.topic.produce(ada.created(), ada.funded())
    first = pipeline.new_consumer()
    await drive(first, pipeline.reached(2))
    await first.close()
    # The offset that is committed to Kafka doesn't matter.
    kafka = Consumer(
        {
            "bootstrap.servers": consumer_settings.kafka_bootstrap_servers,
            "group.id": consumer_settings.consumer_group,
        }
    )
    kafka.commit(offsets=[TopicPartition(consumer_settings.kafka_topic, 0, 4)], asynchronous=False)
    kafka.close()
    pipeline.topic.produce(ada.funded(), ada.funded(), ada.funded())
    before = metric("records_total")
    await drive(pipeline.new_consumer(), pipeline.reached(5))
    assert metric("records_total") - before == 3
    assert [row[1] for row in await pipeline.rows(HISTORY)] == [1, 2, 3, 4, 5]


async def test_the_offsets_committed_to_kafka_follow_the_database(
    pipeline: HistoryPipeline, consumer_settings: ConsumerSettings, eventually: Eventually
) -> None:
    pipeline.topic.produce(Wallet().created())
    await drive(pipeline.new_consumer(), pipeline.reached(1))
    kafka = Consumer(
        {
            "bootstrap.servers": consumer_settings.kafka_bootstrap_servers,
            "group.id": consumer_settings.consumer_group,
        }
    )

    async def committed() -> bool:
        parts = [TopicPartition(consumer_settings.kafka_topic, 0)]
        return bool((await asyncio.to_thread(kafka.committed, parts, 5))[0].offset == 1)

    await eventually(committed)
    kafka.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_consumers_share_the_partitions_and_one_takes_over_from_the_other(
    pipeline: HistoryPipeline, protocol: str
) -> None:
    wallets = [Wallet(f"user-{number}") for number in range(3)]
    first, second = (pipeline.new_consumer(consumer_group_protocol=protocol) for _ in range(2))

    def produce() -> None:
        for partition, wallet in enumerate(wallets):
            pipeline.topic.produce(wallet.created() if not wallet.version else wallet.funded(), partition=partition)

    async def all_reached(offset: int) -> bool:
        return all([await pipeline.reached(offset, partition)() for partition in range(3)])

    produce()
    await drive(first, lambda: all_reached(1))

    async def shared() -> bool:
        return len(first.assignment.held) + len(second.assignment.held) == 3 and bool(second.assignment.held)

    await drive([first, second], shared)
    assert first.assignment.held.keys().isdisjoint(second.assignment.held)
    produce()
    await drive([first, second], lambda: all_reached(2))
    await first.close()
    produce()
    await drive(second, lambda: all_reached(3))
    assert sorted(second.assignment.held) == [0, 1, 2]
    assert [row[1] for row in await pipeline.rows(HISTORY)] == [1, 2, 3] * 3
    assert await pipeline.rows("SELECT count(*) FROM history.dead_letters") == [(0,)]


async def test_records_in_hand_are_applied_when_the_database_is_back(pipeline: HistoryPipeline) -> None:
    ada = Wallet()
    pipeline.topic.produce(ada.created())
    consumer = pipeline.new_consumer()
    await drive(consumer, pipeline.reached(1))
    async with unreachable_engine() as away:
        consumer._engine = away
        pipeline.topic.produce(ada.funded(), ada.funded())
        failures: list[TemporaryError] = []

        async def failed_often() -> bool:
            return len(failures) >= 3

        await drive(consumer, failed_often, failures=failures)
        assert {error.dependency for error in failures} == {"database"}
        assert sorted(consumer.assignment.held) == [0, 1, 2]
    consumer._engine = pipeline.consumer
    await drive(consumer, pipeline.reached(3))
    assert [row[1] for row in await pipeline.rows(HISTORY)] == [1, 2, 3]


async def test_a_group_joined_while_the_database_is_away_is_read_when_it_is_back(pipeline: HistoryPipeline) -> None:
    pipeline.topic.produce(Wallet().created())
    consumer = pipeline.new_consumer()
    async with unreachable_engine() as away:
        consumer._engine = away
        failures: list[TemporaryError] = []

        async def failed_often() -> bool:
            return len(failures) >= 3

        await drive(consumer, failed_often, failures=failures)
        assert sorted(consumer.assignment.pending) == [0, 1, 2]
    consumer._engine = pipeline.consumer
    await drive(consumer, pipeline.reached(1))


async def test_a_commit_whose_reply_was_lost_is_not_taken_for_a_takeover(
    pipeline: HistoryPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = Wallet()
    pipeline.topic.produce(ada.created(), ada.funded())
    consumer = pipeline.new_consumer()
    lost: list[Any] = []

    async def write_and_lose_the_reply(*arguments: Any) -> Any:
        result = await batch_writes.write_batch(*arguments)
        if not lost:
            lost.append(result)
            raise ConnectionResetError("the connection was lost during COMMIT")
        return result

    monkeypatch.setattr(consumer_module, "write_batch", write_and_lose_the_reply)
    takeovers = metric("takeovers_total")
    await drive(consumer, pipeline.reached(2), failures=[])
    pipeline.topic.produce(ada.funded())
    await drive(consumer, pipeline.reached(3))
    assert lost
    assert metric("takeovers_total") == takeovers
    assert [row[1] for row in await pipeline.rows(HISTORY)] == [1, 2, 3]


async def test_a_position_that_the_topic_no_longer_has_halts_that_partition_only(
    pipeline: HistoryPipeline, kafka_admin: AdminClient, topic: str
) -> None:
    ada, bob = Wallet(), Wallet()
    pipeline.topic.produce(ada.created(), ada.funded(), partition=0)
    await asyncio.wrap_future(kafka_admin.delete_records([TopicPartition(topic, 0, 2)])[TopicPartition(topic, 0)])
    consumer = pipeline.new_consumer()

    async def halted() -> bool:
        return 0 in consumer.assignment.halted

    await drive(consumer, halted)
    pipeline.topic.produce(bob.created(), partition=1)
    await drive(consumer, pipeline.reached(1, partition=1))
    assert await pipeline.reached(0, partition=0)()
    assert "walletctl history rebuild" in consumer.assignment.halted[0]
    assert "partition 0 halted" in consumer._health.checks["kafka"]
    assert metric("partitions_halted") == 1


async def test_a_recreated_topic_halts_partitions_of_the_old_one(
    pipeline: HistoryPipeline,
) -> None:
    pipeline.topic.produce(Wallet().created(), partition=0)
    pipeline.topic.produce(Wallet().created(), partition=1)
    first = pipeline.new_consumer()
    await drive(first, pipeline.reached(1, partition=1))
    await drive(first, pipeline.reached(1, partition=0))
    await first.close()
    await pipeline.rows("UPDATE history.processed_offsets SET topic_id = 'of-the-topic-before' WHERE partition = 0")
    second = pipeline.new_consumer()
    pipeline.topic.produce(Wallet().created(), partition=0)
    pipeline.topic.produce(Wallet().created(), partition=1)
    await drive(second, pipeline.reached(2, partition=1))
    assert await pipeline.reached(1, partition=0)()
    assert "was recreated" in second.assignment.halted[0]
    second.group_member.topic_id = "of-the-topic-after"
    await second.run_once()
    assert sorted(second.assignment.halted) == [0, 1, 2]


async def test_a_partition_halts_before_the_first_event_of_a_newer_epoch_until_the_history_is_rebuilt(
    pipeline: HistoryPipeline,
) -> None:
    ada, bob = Wallet("ada"), Wallet("bob")
    pipeline.topic.produce(ada.created())
    consumer = pipeline.new_consumer()
    await drive(consumer, pipeline.reached(1))
    # A malformed record is poison in any epoch, and halts no partition.
    pipeline.topic.produce(b"{", partition=0, source_epoch=b"9")
    await drive(consumer, pipeline.reached(2))
    pipeline.topic.produce(ada.funded(), partition=0, source_epoch=b"2")
    pipeline.topic.produce(b"{", partition=0)
    pipeline.topic.produce(bob.created(), partition=1)

    async def halted() -> bool:
        return 0 in consumer.assignment.halted

    await drive(consumer, halted)
    await drive(consumer, pipeline.reached(1, partition=1))
    assert "walletctl history rebuild" in consumer.assignment.halted[0]
    assert await pipeline.reached(2)()
    await pipeline.rows("UPDATE history.processed_offsets SET source_epoch = 2")
    await consumer.close()
    await drive(consumer, pipeline.reached(4))
    assert consumer.assignment.halted == {}


async def test_after_a_restore_stopped_the_history_no_batch_is_committed_and_no_partition_is_read(
    pipeline: HistoryPipeline,
) -> None:
    ada = Wallet()
    pipeline.topic.produce(ada.created())
    consumer = pipeline.new_consumer()
    await drive(consumer, pipeline.reached(1))
    await pipeline.rows("UPDATE history.processed_offsets SET source_epoch = 0")
    pipeline.topic.produce(ada.funded())
    failures: list[TemporaryError] = []

    async def halted() -> bool:
        return sorted(consumer.assignment.halted) == [0, 1, 2]

    await drive(consumer, halted, failures=failures)
    assert "another consumer moved partition 0" in str(failures[0])
    assert [row[1] for row in await pipeline.rows(HISTORY)] == [1]


async def test_a_new_partition_has_the_source_epoch_of_the_others(pipeline: HistoryPipeline) -> None:
    first = pipeline.new_consumer()
    pipeline.topic.produce(Wallet().created())
    await drive(first, pipeline.reached(1))
    await first.close()
    await pipeline.rows("DELETE FROM history.processed_offsets WHERE partition = 1")
    await pipeline.rows("UPDATE history.processed_offsets SET source_epoch = 2")
    pipeline.topic.produce(Wallet().created(), partition=1, source_epoch=b"2")
    await drive(pipeline.new_consumer(), pipeline.reached(1, partition=1))
    assert len(await pipeline.rows(HISTORY)) == 2


async def test_a_consumer_waits_for_a_topic_that_does_not_exist_yet(
    pipeline: HistoryPipeline, kafka_admin: AdminClient, kafka_bootstrap_servers: str
) -> None:
    name = f"later_{uuid4().hex}"
    consumer = pipeline.new_consumer(kafka_topic=name)
    with pytest.raises(TemporaryError, match="not exist yet"):
        await consumer.run_once()
    await ensure_topic(kafka_admin, name, 1, {})
    Topic(kafka_bootstrap_servers, name).produce(Wallet().created())

    async def arrived() -> bool:
        return len(await pipeline.rows(HISTORY)) == 1

    await drive(consumer, arrived, failures=[])
    kafka_admin.delete_topics([name])


async def test_a_stalled_consumer_joins_again_and_reads_on(
    pipeline: HistoryPipeline, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stall_detector, "PATIENCE_SECONDS", 0.6)
    ada = Wallet()
    pipeline.topic.produce(ada.created())
    consumer = pipeline.new_consumer()
    await drive(consumer, pipeline.reached(1))
    assert consumer.group_member.subscription is not None
    consumer.group_member.subscription._consumer.pause([TopicPartition(topic, 0)])
    before = metric("standstills_total")
    failures: list[TemporaryError] = []
    pipeline.topic.produce(ada.funded())

    async def looked_and_arrived() -> bool:
        await consumer.look_at_ends(3)
        return await pipeline.reached(2)()

    await drive(consumer, looked_and_arrived, failures=failures)
    assert [str(error) for error in failures] == ["kafka: nothing comes from partitions 0, though the broker has more"]
    assert metric("standstills_total") - before == 1


@pytest.fixture
def foreign_producer(kafka_bootstrap_servers: str, topic: str) -> Iterator[ForeignProducer]:
    """A foreign client that writes to the topic in transactions."""
    with ForeignProducer(kafka_bootstrap_servers, topic) as foreign_producer:
        yield foreign_producer


async def test_a_foreign_open_transaction_delays_nothing_and_its_records_are_dead_lettered(
    pipeline: HistoryPipeline, foreign_producer: ForeignProducer
) -> None:
    ada = Wallet()
    pipeline.topic.produce(ada.created())
    foreign_producer.write(b"no event")
    pipeline.topic.produce(ada.funded())
    await drive(pipeline.new_consumer(), pipeline.reached(3))
    assert [row[1] for row in await pipeline.rows(HISTORY)] == [1, 2]
    assert await pipeline.rows('SELECT "offset", reason FROM history.dead_letters') == [(1, "not-json")]


async def test_records_of_an_aborted_foreign_transaction_count_as_committed_ones_do(
    pipeline: HistoryPipeline, foreign_producer: ForeignProducer
) -> None:
    ada = Wallet()
    created = ada.created()
    forged = Wallet("ada", ada.id, version=1, balance=ada.balance).funded("1000000.00")
    foreign_producer.write(created.encode().encode(), forged.encode().encode(), b"{")
    foreign_producer.abort()
    pipeline.topic.produce(created, ada.funded())
    await drive(pipeline.new_consumer(), pipeline.reached(6))
    assert [row[2] for row in await pipeline.rows(HISTORY)] == [created.event_id, forged.event_id]
    assert await pipeline.rows('SELECT "offset", reason FROM history.dead_letters ORDER BY 1') == [
        (2, "not-json"),
        (5, "version-conflict"),
    ]


@pytest.mark.parametrize("end", ["commit", "abort"])
async def test_behind_transaction_markers_the_consumer_is_at_the_end_and_is_not_stalled(
    pipeline: HistoryPipeline,
    foreign_producer: ForeignProducer,
    kafka_bootstrap_servers: str,
    end: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stall_detector, "PATIENCE_SECONDS", 0.2)
    ada = Wallet()
    consumer, before = pipeline.new_consumer(), metric("standstills_total")
    looks: list[float] = []

    async def has_looked_for_long() -> bool:
        await consumer.look_at_ends(3)
        looks.append(time.monotonic())
        return looks[-1] - looks[0] > 4 * stall_detector.PATIENCE_SECONDS

    made: list[AnyEvent] = [ada.created(), ada.funded()]
    for number, event in enumerate(made, start=1):
        pipeline.topic.produce(event)
        foreign_producer.write(b"no event")
        getattr(foreign_producer, end)()
        # Three offsets: an event, a record, a marker.
        await drive(consumer, pipeline.reached(3 * number))
        assert (await history_status(pipeline.operator, Broker(KafkaConnection(kafka_bootstrap_servers), -1))).lag == 0
    await drive(consumer, has_looked_for_long)
    assert metric("standstills_total") == before
    assert consumer._health.checks["kafka"] == "ok"
    # The next membership applies records before and behind the end of the partition as well.
    await consumer.close()
    pipeline.topic.produce(ada.funded())
    await drive(consumer, pipeline.reached(7))
    assert [row[1] for row in await pipeline.rows(HISTORY)] == [1, 2, 3]


async def test_an_end_behind_markers_hides_no_event_of_a_newer_epoch(pipeline: HistoryPipeline) -> None:
    ada = Wallet()
    pipeline.topic.produce(ada.created())
    consumer = pipeline.new_consumer()
    await drive(consumer, pipeline.reached(1))
    held = consumer.assignment.held[0]
    ahead = Message(offset=1, value=ada.funded().encode().encode(), headers=[("ce_sourceepoch", b"2")])
    end = Message(offset=3, error=KafkaError(KafkaError._PARTITION_EOF))
    consumer._batch.records = [record_of(ahead, held), end_of(end, held)]
    await consumer.run_once()
    assert list(consumer.assignment.halted) == [0]
    assert await pipeline.position() == 1


async def test_callbacks_of_a_membership_that_ended_change_nothing_of_the_next_one(
    pipeline: HistoryPipeline,
) -> None:
    class Part:
        """A partition, as librdkafka passes it to the callbacks."""

        def __init__(self, partition: int) -> None:
            self.partition = partition

    ada, parts, others = Wallet(), [Part(0), Part(1), Part(2)], [Part(7)]
    pipeline.topic.produce(ada.created())
    consumer = pipeline.new_consumer()
    await drive(consumer, pipeline.reached(1))
    old: Any = consumer.group_member.subscription
    await consumer.close()
    assert metric("partitions_held") == 0
    assert not consumer.assignment.held
    pipeline.topic.produce(ada.funded())
    await drive(consumer, pipeline.reached(2))
    for hear in (old._on_assign, old._on_revoke, old._on_lost):
        hear(mock.Mock(), parts)
        hear(mock.Mock(), others)
    old._halt(Position(1, 0, "id"), "too late")
    old.stall = "too late"
    await consumer.run_once()
    found = consumer.assignment
    assert (sorted(found.held), sorted(found.pending), dict(found.halted)) == ([0, 1, 2], [], {})
    assert metric("partitions_held") == 3
    assert consumer._health.checks["kafka"] == "ok"
    pipeline.topic.produce(ada.funded())
    await drive(consumer, pipeline.reached(3))


async def test_the_error_names_a_session_timeout_that_the_broker_refuses(pipeline: HistoryPipeline) -> None:
    consumer = pipeline.new_consumer(consumer_session_timeout_seconds=0.5)
    failures: list[TemporaryError] = []

    async def failed() -> bool:
        return bool(failures)

    await drive(consumer, failed, failures=failures)
    assert "CONSUMER_SESSION_TIMEOUT_SECONDS=0.5" in str(failures[0])


async def test_a_stopped_consumer_leaves_the_group_at_once(
    consumer_settings: ConsumerSettings, pipeline: HistoryPipeline, eventually: Eventually
) -> None:
    stop, health, ada = asyncio.Event(), Health(), Wallet()
    pipeline.topic.produce(ada.created())
    running = asyncio.create_task(consume(consumer_settings, stop, health))
    await eventually(pipeline.reached(1))

    async def ready() -> bool:
        return health.checks == {"database": "ok", "kafka": "ok"}

    await eventually(ready)
    stop.set()
    await asyncio.wait_for(running, 10)
    pipeline.topic.produce(ada.funded())
    async with asyncio.timeout(3):  # well below the session timeout
        await drive(pipeline.new_consumer(), pipeline.reached(2))
    assert [row[1] for row in await pipeline.rows(HISTORY)] == [1, 2]


@asynccontextmanager
async def unreachable_engine() -> AsyncIterator[AsyncEngine]:
    """An engine on a port on which no server listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        engine = create_engine(f"postgresql://nobody@127.0.0.1:{bound.getsockname()[1]}/nothing", "tests")
        yield engine
        await engine.dispose()
