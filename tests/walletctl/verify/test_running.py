"""The audit beside live traffic, replays, foreign records, retention, and with servers away."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.identifiers import new_id
from common.kafka import topics
from common.pauses import pause
from common.postgres.engine import operator_engine
from common.settings import PipelineSettings
from common.tables.roles import Role
from outbox_relay import retention
from outbox_relay.operations import parking
from outbox_relay.operations.replay import Selection
from outbox_relay.retention import RetentionAges
from support.foreign_transactions import ForeignProducer
from support.pipeline_acts import audit, replay
from support.pipelines import api_engine, move_money, new_wallets, run_consumer, run_relay, tamper
from support.repetition import repeat
from support.roles import ROLES
from walletctl.verify import horizons, published
from walletctl.verify.audit import DEAD_LETTERS, HISTORY, OUTBOX, PROGRESS, TOPIC
from walletctl.verify.report import Report
from walletctl.verify.snapshots import take_snapshots


@pytest.fixture
async def api(fresh: PipelineSettings) -> AsyncIterator[AsyncEngine]:
    """An engine that logs in as the wallet API does."""
    async with api_engine(fresh.database_url) as engine:
        yield engine


def broken(report: Report) -> dict[str, int]:
    return {check.name: check.difference_count for check in report.checks if check.difference_count}


async def test_live_traffic_raises_no_false_alarm(
    fresh: PipelineSettings, api: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Transactions that are under way at a snapshot have created rows of before its horizon.
    monkeypatch.setattr(horizons, "UNCOMMITTED_SECONDS_MAX", 0.0)
    wallets = await new_wallets(api)
    stop, consumed = asyncio.Event(), asyncio.Event()

    async def replay_now_and_then() -> None:
        await replay(fresh, Selection(event_type="WALLET_FUNDED"))
        await pause(stop, 0.3)

    async with asyncio.TaskGroup() as relay:
        # The relay ends last: the consumer waits for every event that was committed when it started.
        relay.create_task(repeat(lambda: run_relay(fresh), consumed))
        async with asyncio.TaskGroup() as tasks:
            for work in (lambda: move_money(api, wallets, 2), lambda: run_consumer(fresh), replay_now_and_then):
                tasks.create_task(repeat(work, stop))
            reports = [await audit(fresh, since_last=number % 2 == 1) for number in range(12)]
            stop.set()
        consumed.set()
    assert [report.differences for report in reports] == [[]] * len(reports)
    assert any(report.horizon.on_their_way for report in reports)
    assert reports[-1].horizon.last_outbox_id > reports[0].horizon.last_outbox_id
    await run_relay(fresh)
    await run_consumer(fresh)
    at_rest = await audit(fresh)
    assert at_rest.differences == []
    assert at_rest.horizon.on_their_way == 0
    assert at_rest.horizon.topic_duplicates > 0


async def test_an_event_that_is_not_published_yet_is_on_its_way(fresh: PipelineSettings, api: AsyncEngine) -> None:
    await move_money(api, await new_wallets(api), 1)
    pending = await audit(fresh)
    assert (pending.ok, pending.horizon.pending, pending.horizon.on_their_way) == (True, 11, 13)
    await run_relay(fresh)
    published_only = await audit(fresh)
    assert (published_only.ok, published_only.horizon.pending, published_only.horizon.on_their_way) == (True, 0, 13)


async def test_a_record_that_is_not_from_the_outbox_is_named(
    fresh: PipelineSettings, engine: AsyncEngine, api: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "STRAYS_HELD_MAX", 2)
    wallets = await new_wallets(api)
    await move_money(api, wallets, 1)
    await run_relay(fresh)
    async with engine.connect() as connection:
        event_id = await connection.scalar(text("SELECT event_id FROM wallet.outbox LIMIT 1"))
    producer = Producer({"bootstrap.servers": fresh.kafka_bootstrap_servers, "partitioner": "murmur2_random"})
    for ce_id in (str(new_id()), None, "no uuid", str(event_id)):
        # In the hot wallet's partition: records of the outbox follow.
        producer.produce(fresh.kafka_topic, b"{}", str(wallets["hot"]), headers={"ce_id": ce_id})
    assert producer.flush(10) == 0
    await move_money(api, wallets, 1)
    await run_relay(fresh)
    report = await audit(fresh)
    assert broken(report) == {TOPIC: 4}
    assert sum("expected an event of this outbox" in line for line in report.differences) == 3
    assert sum(f"duplicate of event {event_id}" in line for line in report.differences) == 1


@pytest.mark.parametrize("end", ["commit", "abort"])
async def test_what_relays_wrote_beside_and_behind_a_strangers_transaction_is_no_difference(
    fresh: PipelineSettings, api: AsyncEngine, end: str
) -> None:
    wallets = await new_wallets(api)

    async def move_and_audit() -> dict[str, int]:
        await move_money(api, wallets, 1)
        await run_relay(fresh)
        await run_consumer(fresh)
        return broken(await audit(fresh))

    with ForeignProducer(fresh.kafka_bootstrap_servers, fresh.kafka_topic) as foreign_producer:
        # Before every record of a relay: verify does not read them, and the consumer does.
        for partition in range(3):
            foreign_producer.write(b"{", partition=partition)
        assert await move_and_audit() == {DEAD_LETTERS: 3}
        getattr(foreign_producer, end)()
        assert broken(await audit(fresh)) == {DEAD_LETTERS: 3}
        assert await move_and_audit() == {DEAD_LETTERS: 3}


async def test_a_row_whose_record_is_another_ones_marker_is_named(
    fresh: PipelineSettings, engine: AsyncEngine, api: AsyncEngine
) -> None:
    await new_wallets(api)
    await run_relay(fresh)
    with ForeignProducer(fresh.kafka_bootstrap_servers, fresh.kafka_topic) as foreign_producer:
        async with engine.connect() as connection:
            # Five rows on three partitions: the fullest has a row before the one that is moved.
            fullest = "SELECT kafka_partition FROM wallet.outbox GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
            partition = int(await connection.scalar(text(fullest)) or 0)
        (offset,) = foreign_producer.write(b"{", partition=partition)
        foreign_producer.commit()
        last_row = f"WHERE id = (SELECT max(id) FROM wallet.outbox WHERE kafka_partition = {partition})"
        await tamper(fresh.database_url, f"UPDATE wallet.outbox SET kafka_offset = {offset + 1} {last_row}")
        report = await audit(fresh)
    assert broken(report)[TOPIC] == 2
    assert sum("found none in the topic" in line for line in report.differences) == 1
    assert sum("expected an event of this outbox" in line for line in report.differences) == 1


async def test_records_that_the_topic_no_longer_keeps_are_counted_and_no_difference(
    fresh: PipelineSettings, engine: AsyncEngine, api: AsyncEngine, kafka_admin: AdminClient
) -> None:
    await move_money(api, await new_wallets(api), 3)
    await run_relay(fresh)
    async with engine.connect() as connection:
        fullest = text(
            "SELECT kafka_partition FROM wallet.outbox GROUP BY kafka_partition ORDER BY count(*) DESC LIMIT 1"
        )
        partition = await connection.scalar(fullest)
    for future in kafka_admin.delete_records([TopicPartition(fresh.kafka_topic, partition, 2)]).values():
        await asyncio.wrap_future(future)
    report = await audit(fresh)
    assert report.ok
    assert report.horizon.topic_expired == 2


async def test_a_topic_that_is_gone_is_named(settings: PipelineSettings) -> None:
    report = await audit(settings.model_copy(update={"kafka_topic": f"gone_{new_id()}"}))
    assert broken(report) == {TOPIC: report.horizon.last_outbox_id}
    assert len(report.differences) == min(100, report.difference_count)


async def test_the_history_may_live_in_another_database(apart: PipelineSettings) -> None:
    assert (await audit(apart)).differences == []
    await tamper(apart.history_database_url, "DELETE FROM history.transaction_events WHERE wallet_version = 3")
    assert broken(await audit(apart)) == {HISTORY: 6, PROGRESS: 6}


async def test_nothing_at_all_agrees(fresh: PipelineSettings) -> None:
    report = await audit(fresh)
    assert report.ok
    assert report.horizon.last_outbox_id == 0


async def test_a_broker_that_is_away_is_told_in_one_line(
    settings: PipelineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "ADMIN_TIMEOUT_SECONDS", 0.5)
    away = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    with pytest.raises(TimeoutError, match=r"Kafka at .*:1: "):
        await audit(away)


async def test_a_database_that_is_away_is_an_os_error(settings: PipelineSettings) -> None:
    away = settings.model_copy(update={"history_database_url": "postgresql://postgres@127.0.0.1:1/wallet"})
    with pytest.raises(OSError, match="127"):
        await audit(away)


async def test_an_event_that_was_skipped_is_counted_and_no_difference(
    fresh: PipelineSettings, engine: AsyncEngine, api: AsyncEngine, operator: AsyncEngine
) -> None:
    """The last event of a wallet, a fund: the history lacks one version, and it is not on its way."""
    await move_money(api, await new_wallets(api), 1)
    async with engine.connect() as connection:
        query = text("SELECT max(id) FROM wallet.outbox WHERE event_type = 'WALLET_FUNDED'")
        row_id = int(await connection.scalar(query) or 0)
    await parking.park(operator, row_id, "drill")
    await parking.skip(operator, row_id, "drill")
    await run_relay(fresh)
    await run_consumer(fresh, 12)
    report = await audit(fresh)
    assert report.differences == []
    horizon = report.horizon
    assert (horizon.skipped, horizon.parked, horizon.pending, horizon.on_their_way) == (1, 0, 0, 0)


async def _age_and_prune(settings: PipelineSettings, where: str) -> int:
    """Make outbox rows look old, and prune them as an operator does. The others stay, however late that comes."""
    published_at = f"CASE WHEN {where} THEN created_at - interval '1 day' ELSE now() + interval '1 day' END"
    async with operator_engine(settings.database_url) as engine, engine.begin() as connection:
        await connection.execute(text(f"UPDATE wallet.outbox SET published_at = {published_at}"))
        age = text("SELECT extract(epoch FROM now() - max(created_at))::float FROM wallet.outbox WHERE " + where)
        seconds = float(await connection.scalar(age) or 0) - 0.000_01
    ages = RetentionAges(seconds / 86_400, 7)
    async with ROLES.engine(settings.database_url, Role.OPERATOR) as operator:
        return sum([chunk.rows async for chunk in retention.prune(operator, ages)])


async def test_events_that_retention_has_taken_are_counted_and_no_difference(settings: PipelineSettings) -> None:
    async with operator_engine(settings.database_url) as engine, engine.connect() as connection:
        count, last_id = (await connection.execute(text("SELECT count(*), max(id) FROM wallet.outbox"))).one()
    # One row in the middle stays: records of pruned events lie before and behind it.
    assert await _age_and_prune(settings, f"id <> {last_id // 2}") == count - 1
    report = await audit(settings)
    assert report.differences == []
    assert report.horizon.pruned in {79, 80, 81}
    assert report.horizon.on_their_way == 0


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM history.transaction_events WHERE wallet_version = 3", {HISTORY, PROGRESS}),
        # The first of its partition: a record behind a kept row would also be one without a row.
        ("DELETE FROM wallet.outbox WHERE id = (SELECT id FROM wallet.outbox ORDER BY kafka_offset LIMIT 1)", {OUTBOX}),
        ("UPDATE wallet.outbox_pruned SET version_count = version_count - 1", {OUTBOX}),
        ("UPDATE history.transaction_events SET balance_after_minor = 1 WHERE wallet_version = 3", {HISTORY}),
        # Of an event that is still there: its payload is known.
        (
            """
            UPDATE history.transaction_events SET event_data = '{}'
            WHERE event_id = (SELECT event_id FROM wallet.outbox WHERE id = 6)
            """,
            {HISTORY},
        ),
    ],
)
async def test_what_is_lost_among_pruned_events_is_named(
    settings: PipelineSettings, statement: str, expected: set[str]
) -> None:
    await _age_and_prune(settings, "id > 7")
    assert (await audit(settings)).differences == []
    await tamper(settings.database_url, statement)
    assert set(broken(await audit(settings))) == expected


@pytest.mark.parametrize(
    ("database", "statement"),
    [("wallet", "DELETE FROM wallet.outbox_pruned"), ("history", "DELETE FROM history.wallet_progress")],
)
async def test_the_audit_can_write_to_neither_database(apart: PipelineSettings, database: str, statement: str) -> None:
    # A superuser may write: it is the session that refuses.
    with pytest.raises(RuntimeError, match="only reads"):
        async with take_snapshots(apart) as snapshots:
            await getattr(snapshots, database).execute(text(statement))
