import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from confluent_kafka import KafkaError, KafkaException, Message
from sqlalchemy import text

from common.identifiers import LANES, lane_of
from common.kafka.connection import KafkaConnection
from common.kafka.topics import set_settings
from common.postgres.engine import create_engine
from common.postgres.errors import DRIVER_ERRORS
from common.postgres.raw_sql import raw_connection
from common.worker import TemporaryError
from outbox_relay import leases, publisher, queries
from support.outboxes import drain, write_rows
from support.relay_pipeline import RelayPipeline


def headers_of(message: Message) -> dict[str, bytes]:
    return dict(message.headers() or [])  # type: ignore[arg-type]


def event_ids(messages: list[Message]) -> list[str]:
    return [headers_of(message)["ce_id"].decode() for message in messages]


async def test_each_committed_row_is_in_the_topic_where_its_settlement_says(pipeline: RelayPipeline) -> None:
    wallets = [uuid4() for _ in range(20)]
    for wallet in wallets:
        await pipeline.write(wallet, 5, '{"amount": "1.00"}')
    assert await drain(pipeline.new_relay()) == 100
    records = {(message.partition(), message.offset()): message for message in pipeline.read_topic()}
    rows = await pipeline.rows()
    assert len(records) == len(rows) == 100
    for row in rows:
        record = records[row["kafka_partition"], row["kafka_offset"]]
        assert record.key() == str(row["aggregate_id"]).encode()
        assert record.value() == b'{"amount": "1.00"}'
        assert headers_of(record)["ce_id"] == str(row["event_id"]).encode()
        assert row["published_at"] is not None
        assert row["attempts"] == 1


async def test_records_carry_the_cloud_event_and_the_trace(pipeline: RelayPipeline) -> None:
    wallet, trace = uuid4(), f"00-{'a' * 32}-{'b' * 16}-01"
    await pipeline.write(wallet)
    async with pipeline.engine.begin() as connection:
        await connection.execute(
            text("UPDATE wallet.outbox SET headers = json_build_object('traceparent', cast(:trace AS text))"),
            {"trace": trace},
        )
    await drain(pipeline.new_relay())
    (record,) = pipeline.read_topic()
    row = (await pipeline.rows())[0]
    assert headers_of(record) == {
        "ce_specversion": b"1.0",
        "ce_id": str(row["event_id"]).encode(),
        "ce_source": b"/wallet-api",
        "ce_type": b"TEST",
        "ce_subject": str(wallet).encode(),
        "ce_time": row["created_at"].isoformat().encode(),
        "ce_sourceepoch": b"1",
        "content-type": b"application/json",
        "traceparent": trace.encode(),
    }


async def test_a_wallets_events_stay_in_order_with_four_relays_at_once(pipeline: RelayPipeline) -> None:
    wallets = [uuid4() for _ in range(30)]
    for _ in range(4):
        for wallet in wallets:
            await pipeline.write(wallet, 3)
    relays = [pipeline.new_relay(relay_batch_rows=40, relay_lanes_per_batch=4) for _ in range(4)]
    assert sum(await asyncio.gather(*map(drain, relays))) == 360
    ids = {str(row["event_id"]): row["id"] for row in await pipeline.rows()}
    messages = pipeline.read_topic()
    assert len(messages) == 360
    for wallet in wallets:
        own = [message for message in messages if message.key() == str(wallet).encode()]
        order = [ids[event_id] for event_id in event_ids(own)]
        assert order == sorted(order)
        assert len(own) == 12


async def test_a_row_that_commits_late_with_a_lower_id_is_published(
    pipeline: RelayPipeline, eventually: Callable[..., Awaitable[Any]]
) -> None:
    """The low water must not strand the row, however many later rows were published meanwhile."""
    relay = pipeline.new_relay()
    late = uuid4()
    same_lane = next(wallet for wallet in iter(uuid4, None) if lane_of(wallet) == lane_of(late))
    async with pipeline.engine.connect() as slow, slow.begin():
        await write_rows(slow, late, 1)
        for _ in range(3):
            await pipeline.write(same_lane, 1000)
            await drain(relay)

            async def read_again(before: float = relay._next_snapshot) -> bool:
                await relay.run_once()
                return relay._next_snapshot > before

            await eventually(read_again)
    assert await drain(relay) == 1
    assert all(row["published_at"] for row in await pipeline.rows())


async def test_the_low_water_rises_behind_published_rows_and_nothing_is_stranded(
    pipeline: RelayPipeline, eventually: Callable[..., Awaitable[Any]]
) -> None:
    relay, wallet = pipeline.new_relay(), uuid4()

    async def low_water() -> int:
        async with pipeline.engine.connect() as connection:
            query = text("SELECT low_water FROM wallet.outbox_lanes WHERE lane = :lane")
            return int(await connection.scalar(query, {"lane": lane_of(wallet)}) or 0)

    async def risen() -> bool:
        await pipeline.write(wallet, 700)
        await drain(relay)
        return await low_water() > 1000

    await eventually(risen)
    assert all(row["published_at"] for row in await pipeline.rows())


async def test_a_relay_that_dies_after_producing_loses_its_lease_and_the_next_one_publishes_again(
    pipeline: RelayPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet = uuid4()
    await pipeline.write(wallet, 3)

    async def killed_before_settling(connection: asyncpg.Connection, published: Any) -> None:
        del published
        async with raw_connection(pipeline.engine) as other:
            await other.execute(f"SELECT pg_terminate_backend({connection.get_server_pid()}, 5000)")
        await connection.execute("SELECT 1")

    with monkeypatch.context() as patch:
        patch.setattr(queries, "settle", killed_before_settling)
        with pytest.raises(TemporaryError, match="database"):
            await pipeline.new_relay().run_once()
    assert all(row["published_at"] is None for row in await pipeline.rows())
    assert await drain(pipeline.new_relay()) == 3
    rows = await pipeline.rows()
    ids = [str(row["event_id"]) for row in rows]
    assert event_ids(pipeline.read_topic()) == ids + ids
    assert [row["kafka_offset"] for row in rows] == [3, 4, 5]


async def test_a_lane_that_another_relay_holds_is_left_alone(pipeline: RelayPipeline) -> None:
    held, free = uuid4(), next(wallet for wallet in iter(uuid4, None) if lane_of(wallet) == 0)
    while lane_of(held) == 0:
        held = uuid4()
    await pipeline.write(held)
    await pipeline.write(free)
    async with pipeline.engine.connect() as holder, holder.begin():
        await holder.execute(
            text("SELECT FROM wallet.outbox_lanes WHERE lane = :lane FOR UPDATE"), {"lane": lane_of(held)}
        )
        assert await drain(pipeline.new_relay()) == 1
        published = {row["aggregate_id"]: row["published_at"] for row in await pipeline.rows()}
        assert published[free] is not None
        assert published[held] is None
    assert await drain(pipeline.new_relay()) == 1


async def test_a_poison_row_parks_its_wallet_and_nobody_else(pipeline: RelayPipeline) -> None:
    poisoned, healthy = uuid4(), uuid4()
    await pipeline.write(poisoned)
    await pipeline.write(poisoned, 1, f'{{"too": "{"x" * 2_000_000}"}}')
    await pipeline.write(poisoned, 2)
    await pipeline.write(healthy, 3)
    relay = pipeline.new_relay()
    await drain(relay)
    rows = await pipeline.rows()
    assert [row["published_at"] is not None for row in rows] == [True, False, False, False, True, True, True]
    assert [row["parked_at"] is not None for row in rows] == [False, True, True, True, False, False, False]
    assert "too large" in rows[1]["last_error"].lower()
    assert f"row {rows[1]['id']}" in rows[2]["last_error"]
    await pipeline.write(poisoned)
    await drain(relay)
    assert (await pipeline.rows())[-1]["parked_at"] is not None
    assert len(pipeline.read_topic()) == 4


async def test_a_clock_that_is_wrong_parks_nothing(
    pipeline: RelayPipeline, kafka_bootstrap_servers: str, topic: str, eventually: Callable[..., Awaitable[Any]]
) -> None:
    """A broker may refuse records by their timestamps: all records, until the clocks agree."""
    relay = pipeline.new_relay()

    async def refused() -> bool:
        await pipeline.write(uuid4())
        try:
            await relay.run_once()
        except TemporaryError as error:
            return "timestamp" in str(error).lower()
        return False

    await set_settings(KafkaConnection(kafka_bootstrap_servers), topic, {"message.timestamp.before.max.ms": "0"})
    await eventually(refused)
    assert all(row["parked_at"] is None for row in await pipeline.rows())
    await set_settings(
        KafkaConnection(kafka_bootstrap_servers), topic, {"message.timestamp.before.max.ms": "9223372036854775807"}
    )

    async def published() -> bool:
        with suppress(TemporaryError):
            await relay.run_once()
        return all(row["published_at"] for row in await pipeline.rows())

    await eventually(published)


async def test_while_the_broker_is_away_rows_stay_pending_and_no_transaction_stays_open(
    pipeline: RelayPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FLUSH_MARGIN_SECONDS", "_PING_TIMEOUT_SECONDS"):
        monkeypatch.setattr(publisher, name, 0.3)
    await pipeline.write(uuid4(), 3)
    relay = pipeline.new_relay(kafka_bootstrap_servers="127.0.0.1:1", relay_delivery_timeout_seconds=1)
    for _ in range(2):
        with pytest.raises(TemporaryError, match="kafka"):
            await relay.run_once()
    async with pipeline.engine.connect() as connection:
        open_transactions = await connection.scalar(
            text("""
                SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
            """)
        )
    assert open_transactions == 0
    assert all(row["published_at"] is None and row["parked_at"] is None for row in await pipeline.rows())
    assert await drain(pipeline.new_relay()) == 3


async def test_a_producer_that_fails_for_good_is_replaced_and_its_rows_stay_pending(
    pipeline: RelayPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FailedProducer:
        """Behaves as confluent-kafka after a fatal error: flush raises a SystemError."""

        def __getattr__(self, name: str) -> object:
            def call(*_: object, **__: object) -> int:
                if name == "flush":
                    fatal = KafkaError(KafkaError._FATAL, "Broker: Producer fenced", fatal=True)
                    raise SystemError("flush returned a result with an exception set") from KafkaException(fatal)
                return 0

            return call

    await pipeline.write(uuid4())
    relay = pipeline.new_relay()
    monkeypatch.setattr(relay._publisher, "_producer", FailedProducer())
    with pytest.raises(TemporaryError):
        await relay.run_once()
    assert [row["published_at"] for row in await pipeline.rows()] == [None]
    assert await relay.run_once() == 1


async def test_while_the_database_is_away_a_step_fails_as_temporary(pipeline: RelayPipeline) -> None:
    relay = pipeline.new_relay()
    relay._engine = create_engine("postgresql://postgres@127.0.0.1:1/nowhere", "tests")
    with pytest.raises(TemporaryError, match="database"):
        await relay.run_once()


async def test_a_zombie_cannot_settle(pipeline: RelayPipeline) -> None:
    """PostgreSQL ends the session of a frozen relay; after it wakes up, the relay can change nothing."""
    await pipeline.write(uuid4())
    async with raw_connection(pipeline.relay) as zombie, raw_connection(pipeline.relay) as other:
        await zombie.execute("SET idle_in_transaction_session_timeout = '100ms'")
        await zombie.execute("BEGIN")
        assert len(await leases.claim_lanes(zombie, LANES)) == 1
        async with asyncio.timeout(10):
            while not await leases.claim_lanes(other, LANES):
                await asyncio.sleep(0.02)
        with pytest.raises(DRIVER_ERRORS):
            await leases.claim_lanes(zombie, LANES)
