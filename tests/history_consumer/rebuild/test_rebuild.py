"""A rebuilt history is right whatever the old one was, and readers, consumers and relays go on meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import text

from common.kafka.topics import ensure_topic
from common.postgres.engine import operator_engine
from common.secrets import Secret
from common.settings import PipelineSettings
from common.tables.roles import Role
from common.worker import Health
from history_consumer.read_api.app import create_app
from history_consumer.rebuild import queries, shadow
from history_consumer.rebuild import rebuild as rebuild_module
from history_consumer.rebuild.errors import RebuildUnderWayError, TopicUnfitError
from history_consumer.run import consume
from history_consumer.settings import ConsumerSettings, HistoryApiSettings
from outbox_relay import retention
from outbox_relay.retention import RetentionAges
from support.applications import client_of
from support.foreign_transactions import ForeignProducer
from support.pipeline_acts import audit, rebuild, replay
from support.pipelines import api_engine, move_money, new_wallets, run_consumer, run_relay, tamper
from support.roles import ROLES
from support.schema_objects import OBJECTS
from walletctl.verify.audit import DEAD_LETTERS, HISTORY, OUTBOX, POSITIONS, PROGRESS, TOPIC

Eventually = Callable[..., Awaitable[Any]]

CORRUPTED = (
    "DELETE FROM history.transaction_events WHERE wallet_version = 3",
    "UPDATE history.transaction_events SET amount_minor = 4711 WHERE wallet_version = 4",
    "UPDATE history.transaction_events SET user_id = 'eve' WHERE wallet_version = 5",
    """
    INSERT INTO history.transaction_events (wallet_id, wallet_version, event_id, event_type, user_id, currency,
        balance_after_minor, event_data, created_at)
    SELECT gen_random_uuid(), 1, gen_random_uuid(), 'WALLET_CREATED', 'eve', 'EUR', 0, '{}', now()
    """,
    "UPDATE history.wallet_progress SET event_count = 1",
    """
    INSERT INTO history.dead_letters (topic, partition, "offset", topic_id, value, headers, reason, detail)
    SELECT (SELECT min(topic) FROM history.processed_offsets), 0, 1, 'x', convert_to(payload::text, 'UTF8'), '[]',
        'version-conflict', 'an event that the corrupted history refuses'
    FROM wallet.outbox LIMIT 1
    """,
)


async def objects(url: Secret | str) -> set[tuple[Any, ...]]:
    async with operator_engine(url) as engine, engine.connect() as connection:
        found = await connection.execute(OBJECTS, {"schemas": ["history"]})
        return {tuple(row) for row in found}


async def select(url: Secret | str, statement: str) -> list[tuple[Any, ...]]:
    async with operator_engine(url) as engine, engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(statement))]


async def assert_verified(settings: PipelineSettings) -> None:
    report = await audit(settings)
    assert report.ok, report.differences


async def differing(settings: PipelineSettings) -> set[str]:
    return {check.name for check in (await audit(settings)).checks if check.difference_count}


@asynccontextmanager
async def consuming(settings: PipelineSettings, health: Health | None = None) -> AsyncIterator[Health]:
    """Run a consumer as its process does, for the block."""
    stop, health = asyncio.Event(), health or Health()
    consumer = ConsumerSettings(
        **ROLES.settings(settings, Role.CONSUMER).model_dump(),
        consumer_check_seconds=0.2,
        consumer_poll_seconds=0.05,
        consumer_session_timeout_seconds=6,
    )
    running = asyncio.create_task(consume(consumer, stop, health))
    try:
        yield health
    finally:
        stop.set()
        await asyncio.wait_for(running, 20)


async def lag(settings: PipelineSettings) -> int:
    async with operator_engine(settings.database_url) as engine, engine.connect() as connection:
        return int(
            await connection.scalar(
                text("""
                SELECT (SELECT sum(version) FROM wallet.wallets)
                    - (SELECT coalesce(sum(event_count), 0) FROM history.wallet_progress)
                """)
            )
            or 0
        )


async def test_a_corrupted_history_is_right_again_and_its_tables_are_as_before(settings: PipelineSettings) -> None:
    before = await objects(settings.history_database_url)
    await tamper(settings.history_database_url, *CORRUPTED)
    assert not (await audit(settings)).ok
    done = await rebuild(settings)
    assert (done.source, done.missing, done.from_outbox, done.retried.duplicates) == ("topic", 0, 0, 1)
    await assert_verified(settings)
    assert await objects(settings.history_database_url) == before


async def test_an_index_and_a_grant_that_an_operator_added_are_kept(settings: PipelineSettings) -> None:
    url = settings.history_database_url
    await tamper(
        url,
        'CREATE INDEX "Mine" ON history.transaction_events (currency) WHERE amount_minor > 5',
        "GRANT SELECT ON history.transaction_events TO PUBLIC",
    )
    before = await objects(url)
    await rebuild(settings)
    assert await objects(url) == before
    acl = await select(url, "SELECT relacl::text FROM pg_class WHERE relname = 'transaction_events'")
    assert "=r/" in acl[0][0]


async def test_a_history_in_a_database_of_its_own_is_rebuilt_from_either(apart: PipelineSettings) -> None:
    for source in ("topic", "outbox"):
        await tamper(apart.history_database_url, *CORRUPTED[:5])
        done = await rebuild(apart, source)
        assert done.source == source
        await assert_verified(apart)


async def test_an_empty_history_is_built(settings: PipelineSettings) -> None:
    await tamper(
        settings.history_database_url,
        "TRUNCATE history.transaction_events, history.wallet_progress, history.processed_offsets",
    )
    await rebuild(settings)
    await assert_verified(settings)


async def test_a_rebuild_that_dies_leaves_the_old_history_and_the_next_one_starts_clean(
    settings: PipelineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, everything = settings.history_database_url, "SELECT * FROM history.wallet_progress ORDER BY 1"
    old, positions = await select(url, everything), await select(url, "SELECT * FROM history.processed_offsets")
    swap = shadow.swap

    async def swap_and_die(connection: Any) -> None:
        await swap(connection)
        raise ConnectionResetError("in the middle of the swap")

    with monkeypatch.context() as patch:
        patch.setattr(shadow, "swap", swap_and_die)
        with pytest.raises(ConnectionResetError):
            await rebuild(settings)
    assert await select(url, everything) == old
    assert await select(url, "SELECT * FROM history.processed_offsets") == positions
    await assert_verified(settings)
    await tamper(url, *CORRUPTED)
    await rebuild(settings)
    await assert_verified(settings)


@pytest.mark.parametrize("end", ["open", "commit", "abort"])
async def test_a_topic_with_a_strangers_transactions_is_read_to_its_end(fresh: PipelineSettings, end: str) -> None:
    with ForeignProducer(fresh.kafka_bootstrap_servers, fresh.kafka_topic) as foreign_producer:
        for partition in range(3):
            foreign_producer.write(b"{", partition=partition)
        async with api_engine(fresh.database_url) as engine:
            await new_wallets(engine)
        await run_relay(fresh)
        await run_consumer(fresh)
        if end != "open":
            getattr(foreign_producer, end)()
        done = await rebuild(fresh, "topic")
        assert (done.missing, done.records) == (0, 8)
        assert await differing(fresh) == {DEAD_LETTERS}


async def test_two_rebuilds_at_once_are_one(settings: PipelineSettings) -> None:
    async with operator_engine(settings.history_database_url) as engine, engine.connect() as connection:
        assert await connection.scalar(queries.LOCK)
        with pytest.raises(RebuildUnderWayError):
            await rebuild(settings)


async def test_a_reader_that_holds_the_old_tables_is_waited_for(settings: PipelineSettings) -> None:
    async with operator_engine(settings.history_database_url) as engine, engine.connect() as connection:
        await connection.execute(text("SELECT count(*) FROM history.transaction_events"))
        running = asyncio.create_task(rebuild(settings))
        await asyncio.sleep(2)
        assert not running.done()
        await connection.rollback()
        await asyncio.wait_for(running, 20)
    await assert_verified(settings)


async def test_readers_consumer_and_relay_go_on_during_a_rebuild(
    fresh: PipelineSettings, eventually: Eventually
) -> None:
    app = create_app(HistoryApiSettings(auth="none", database_url=ROLES.url(fresh.database_url, Role.READER)))
    stop = asyncio.Event()
    async with (
        api_engine(fresh.database_url) as engine,
        client_of(app, "http://history") as client,
        consuming(fresh),
    ):
        wallets = await new_wallets(engine)
        await move_money(engine, wallets, 20)
        await run_relay(fresh)

        async def caught_up() -> bool:
            return await lag(fresh) == 0

        await eventually(caught_up)
        await tamper(fresh.database_url, CORRUPTED[1], CORRUPTED[2], CORRUPTED[3])
        seen: list[int] = []

        async def read() -> None:
            while not stop.is_set():
                reply = await client.get(f"/history/wallets/{wallets['hot']}")
                assert reply.status_code == 200, reply.text
                seen.append(reply.json()["as_of_version"])

        async def write() -> None:
            while not stop.is_set():
                await move_money(engine, wallets, 3)
                await run_relay(fresh)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            tasks.create_task(write())
            for source in ("topic", "outbox", "auto"):
                assert (await rebuild(fresh, source)).missing == 0
            stop.set()
        assert len(seen) > 20
        assert seen == sorted(seen), "the history never goes back"
        assert seen[-1] > seen[0]
        await eventually(caught_up)
    await assert_verified(fresh)


async def _truncate(admin: AdminClient, topic: str, partitions: int = 3) -> None:
    parts = [TopicPartition(topic, partition, -1) for partition in range(partitions)]
    for future in admin.delete_records(parts).values():
        await asyncio.wrap_future(future)


async def _ran(settings: PipelineSettings, rounds: int = 3) -> Any:
    async with api_engine(settings.database_url) as engine:
        wallets = await new_wallets(engine)
        await move_money(engine, wallets, rounds)
    await run_relay(settings)
    await run_consumer(settings)
    return wallets


async def test_events_that_the_topic_no_longer_has_come_from_the_outbox(
    fresh: PipelineSettings, kafka_admin: AdminClient
) -> None:
    wallets = await _ran(fresh)
    await _truncate(kafka_admin, fresh.kafka_topic)
    async with api_engine(fresh.database_url) as engine:
        await move_money(engine, wallets, 1)
        await run_relay(fresh)
        await move_money(engine, wallets, 1)
    await tamper(fresh.database_url, *CORRUPTED[:5])
    with pytest.raises(TopicUnfitError, match="begins at offset"):
        await rebuild(fresh, "topic")
    done = await rebuild(fresh)
    assert (done.source, done.missing, done.from_ledger) == ("outbox", 0, 0)
    await assert_verified(fresh)
    await run_relay(fresh)
    await run_consumer(fresh)
    await assert_verified(fresh)


async def test_events_that_the_outbox_no_longer_has_come_from_the_ledger(
    fresh: PipelineSettings, kafka_admin: AdminClient
) -> None:
    wallets = await _ran(fresh)
    url, ids = fresh.database_url, "SELECT wallet_id, wallet_version, event_id FROM history.transaction_events"
    await _truncate(kafka_admin, fresh.kafka_topic)
    before = set(await select(url, ids))
    await tamper(url, "DELETE FROM wallet.outbox WHERE id % 3 > 0")
    async with api_engine(url) as engine:
        await move_money(engine, wallets, 1)
    # Rows that agree with the ledger keep their event. The others get a new one.
    await tamper(url, *CORRUPTED[:3])
    done = await rebuild(fresh)
    assert (done.source, done.missing) == ("outbox", 0)
    assert done.from_ledger > 10
    assert (await differing(fresh)) - {OUTBOX} == set()
    after = set(await select(url, ids))
    assert len(after) == len(before)
    assert {version for _, version, _ in before - after} <= {3, 4, 5}
    assert (await rebuild(fresh)).from_ledger == done.from_ledger
    assert set(await select(url, ids)) == after
    await run_relay(fresh)
    await run_consumer(fresh)
    assert (await differing(fresh)) - {OUTBOX} == set()
    assert await select(url, "SELECT count(*) FROM history.dead_letters") == [(0,)]


async def test_after_a_recreated_topic_the_consumer_goes_on_by_itself(
    fresh: PipelineSettings, kafka_admin: AdminClient, eventually: Eventually
) -> None:
    async with api_engine(fresh.database_url) as engine, consuming(fresh) as health:
        wallets = await new_wallets(engine)
        await move_money(engine, wallets, 3)
        await run_relay(fresh)

        async def caught_up() -> bool:
            return await lag(fresh) == 0

        await eventually(caught_up)
        for future in kafka_admin.delete_topics([fresh.kafka_topic]).values():
            await asyncio.wrap_future(future)

        async def created_again() -> bool:
            return await ensure_topic(kafka_admin, fresh.kafka_topic, 3, {})

        await eventually(created_again)

        async def halted() -> bool:
            return "halted" in health.checks["kafka"]

        await eventually(halted)
        await move_money(engine, wallets, 2)
        await run_relay(fresh)
        assert await lag(fresh) > 0
        done = await rebuild(fresh)
        assert (done.source, done.missing) == ("outbox", 0)
        assert "recreated" in done.why
        await move_money(engine, wallets, 2)
        await run_relay(fresh)
        await eventually(caught_up, 40)

        async def is_well() -> bool:
            return health.checks == {"database": "ok", "kafka": "ok"}

        await eventually(is_well)
        assert not (await differing(fresh)) & {HISTORY, PROGRESS, POSITIONS}
        # A replay of the outbox fills the topic again.
        await replay(fresh)
        await run_relay(fresh)
        await eventually(caught_up)
    await assert_verified(fresh)


async def test_after_retention_and_a_recreated_topic_only_the_topic_differs_until_a_replay_has_filled_it(
    fresh: PipelineSettings, kafka_admin: AdminClient, eventually: Eventually
) -> None:
    wallets = await _ran(fresh)

    async def is_pruned() -> bool:
        async with ROLES.engine(fresh.database_url, Role.OPERATOR) as engine:
            pruned = [chunk async for chunk in retention.prune(engine, RetentionAges(1e-7, 7))]
        assert pruned
        return await select(fresh.database_url, "SELECT count(*) FROM wallet.outbox") == [(0,)]

    await eventually(is_pruned)
    async with api_engine(fresh.database_url) as engine:
        await move_money(engine, wallets, 1)
    await run_relay(fresh)
    await run_consumer(fresh)
    await assert_verified(fresh)
    for future in kafka_admin.delete_topics([fresh.kafka_topic]).values():
        await asyncio.wrap_future(future)
    await eventually(lambda: ensure_topic(kafka_admin, fresh.kafka_topic, 3, {}))
    assert await differing(fresh) == {TOPIC, POSITIONS}
    # The history is lost too: only the ledger has the pruned versions.
    await tamper(
        fresh.history_database_url,
        "TRUNCATE history.transaction_events, history.wallet_progress, history.processed_offsets",
    )
    done = await rebuild(fresh)
    assert (done.from_outbox, done.from_ledger, done.missing) == (8, 29, 0)
    assert await differing(fresh) == {TOPIC}
    await replay(fresh)
    await run_relay(fresh)
    await assert_verified(fresh)


async def test_a_partition_halted_at_an_offset_out_of_range_goes_on_after_a_rebuild(
    fresh: PipelineSettings, kafka_admin: AdminClient, eventually: Eventually
) -> None:
    wallets = await _ran(fresh)
    async with api_engine(fresh.database_url) as engine:
        await move_money(engine, wallets, 2)
        await run_relay(fresh)
        await _truncate(kafka_admin, fresh.kafka_topic)
        async with consuming(fresh) as health:

            async def halted() -> bool:
                return "halted" in health.checks.get("kafka", "")

            await eventually(halted)
            assert (await rebuild(fresh)).source == "outbox"
            await move_money(engine, wallets, 2)
            await run_relay(fresh)

            async def caught_up() -> bool:
                return await lag(fresh) == 0 and health.checks["kafka"] == "ok"

            await eventually(caught_up, 40)
    await assert_verified(fresh)


async def test_without_a_topic_the_history_comes_from_the_outbox_and_the_consumer_starts_at_the_next_one(
    settings: PipelineSettings,
) -> None:
    url = settings.history_database_url
    await tamper(url, *CORRUPTED[:5], "UPDATE history.processed_offsets SET topic = 'gone'")
    gone = settings.model_copy(update={"kafka_topic": "gone"})
    done = await rebuild(gone)
    assert (done.source, done.missing, done.records) == ("outbox", 0, 0)
    assert await select(url, "SELECT * FROM history.processed_offsets") == []
    assert not (await differing(gone)) & {HISTORY, PROGRESS, POSITIONS}


async def test_a_rebuild_cannot_write_to_the_wallet_database(settings: PipelineSettings) -> None:
    # A superuser may write: it is the session that refuses.
    with pytest.raises(RuntimeError, match="only reads"):
        async with rebuild_module._wallets(settings) as wallets:
            await wallets.execute(text("DELETE FROM wallet.outbox_pruned"))
