"""After a restore to an earlier time, an epoch separates lost events from new ones, and the history follows."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.kafka.topic_reader import open_topic
from common.postgres.engine import create_engine, operator_engine
from common.secrets import Secret
from common.settings import PipelineSettings
from common.tables.roles import Role
from common.worker import Health, TemporaryError
from history_consumer.consumer.consumer import HistoryConsumer
from history_consumer.rebuild import shadow
from history_consumer.rebuild.errors import TopicUnfitError
from history_consumer.settings import ConsumerSettings
from outbox_relay.operations.replay import Selection
from support.databases import database_of
from support.foreign_transactions import ForeignProducer
from support.pipeline_acts import audit, begin_epoch, find_lost, rebuild, replay
from support.pipelines import api_engine, move_money, new_wallets, run_relay, tamper
from support.repetition import repeat
from support.roles import ROLES
from walletctl.restore.restore import LossReport
from walletctl.verify.audit import DEAD_LETTERS, HISTORY, POSITIONS, TOPIC

NewDatabase = Callable[[str | None], str]

WALLETS_MADE, EVENTS_A_ROUND = 5, 6


@dataclass(frozen=True)
class Pipeline:
    """A pipeline without processes: the test runs each step."""

    new_database: NewDatabase

    async def start(self, settings: PipelineSettings, rounds: int = 1) -> dict[str, UUID]:
        """Create wallets, move money between them, and apply every event to the history."""
        async with api_engine(settings.database_url) as engine:
            wallets = await new_wallets(engine)
        await self.move(settings, wallets, rounds)
        await consume(settings)
        return wallets

    async def move(self, settings: PipelineSettings, wallets: dict[str, UUID], rounds: int) -> None:
        """Move money and publish it."""
        async with api_engine(settings.database_url) as engine:
            await move_money(engine, wallets, rounds)
        await run_relay(settings)

    async def backup(self, url: Secret | str) -> str:
        """Return a copy of the database."""
        return await asyncio.to_thread(self.new_database, database_of(url))


@pytest.fixture
def pipeline(new_database: NewDatabase) -> Pipeline:
    return Pipeline(new_database)


@pytest.fixture(params=["restored along", "apart"])
def running(
    request: pytest.FixtureRequest, fresh: PipelineSettings, new_database: NewDatabase, template: str
) -> PipelineSettings:
    """A pipeline whose history is in the wallet database, or in a database of its own."""
    if request.param == "restored along":
        return fresh
    return fresh.model_copy(update={"history_database_url": new_database(template)})


def restored_to(settings: PipelineSettings, backup: str) -> PipelineSettings:
    along = settings.history_database_url == settings.database_url
    return settings.model_copy(
        update={"database_url": backup, "history_database_url": backup if along else settings.history_database_url}
    )


async def consume(settings: PipelineSettings) -> dict[int, str]:
    """Consume until each partition is read to its end or halted; return the halted ones, and why."""
    engine = create_engine(ROLES.url(settings.history_database_url, Role.CONSUMER), "tests")
    made = ConsumerSettings(**settings.model_dump(), consumer_poll_seconds=0.02)
    consumer = HistoryConsumer(made, engine, Health())
    try:
        async with (
            asyncio.timeout(60),
            open_topic(settings.kafka, settings.kafka_topic, "tests", expired="fail") as topic,
        ):
            while True:
                await _step(consumer)
                ends = {partition: high for partition, (_, high) in (await topic.offsets()).items()}
                positions = {partition: held.next_offset for partition, held in consumer.assignment.held.items()}
                halted = dict(consumer.assignment.halted)
                if {**ends, **positions} == ends and positions.keys() | halted.keys() == ends.keys():
                    return halted
    finally:
        await consumer.close()
        await engine.dispose()


async def _step(consumer: HistoryConsumer) -> None:
    try:
        await consumer.run_once()
    except TemporaryError:
        # The consumer found that its positions have moved, and joins again.
        await asyncio.sleep(0)


async def select(url: Secret | str, statement: str) -> list[tuple[Any, ...]]:
    async with operator_engine(url) as engine, engine.begin() as connection:
        result = await connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


async def differing(settings: PipelineSettings) -> set[str]:
    return {check.name for check in (await audit(settings)).checks if check.difference_count}


async def assert_verified(settings: PipelineSettings, superseded: int) -> None:
    report = await audit(settings)
    assert report.ok, report.differences
    assert report.horizon.topic_superseded == superseded


async def test_after_begin_and_rebuild_everything_agrees_and_what_was_lost_is_counted(
    running: PipelineSettings, pipeline: Pipeline
) -> None:
    wallets = await pipeline.start(running, 2)
    backup = await pipeline.backup(running.database_url)
    await pipeline.move(running, wallets, 3)
    await consume(running)
    restored = restored_to(running, backup)
    start = await begin_epoch(restored, "a drill")
    assert (start.epoch, start.pending) == (2, 0)
    assert sum(start.topic_ends.values()) == WALLETS_MADE + 5 * EVENTS_A_ROUND
    # The API and the relay run again before the history is rebuilt.
    await pipeline.move(restored, wallets, 1)
    assert POSITIONS in await differing(restored)
    done = await rebuild(restored)
    assert (done.source, done.missing, done.superseded) == ("outbox", 0, 0)
    assert "restored" in done.why
    await pipeline.move(restored, wallets, 2)
    assert await consume(restored) == {}
    await assert_verified(restored, superseded=3 * EVENTS_A_ROUND)
    # And once more, after all of it.
    await rebuild(restored)
    await assert_verified(restored, superseded=3 * EVENTS_A_ROUND)


async def test_until_it_is_rebuilt_the_history_applies_no_event(running: PipelineSettings, pipeline: Pipeline) -> None:
    wallets = await pipeline.start(running)
    backup = await pipeline.backup(running.database_url)
    await pipeline.move(running, wallets, 1)
    restored = restored_to(running, backup)
    before = await select(restored.history_database_url, "SELECT * FROM history.transaction_events ORDER BY 1, 2")
    await begin_epoch(restored)
    await pipeline.move(restored, wallets, 1)
    halted = await consume(restored)
    assert sorted(halted) == [0, 1, 2]
    assert all("walletctl history rebuild" in why for why in halted.values())
    after = await select(restored.history_database_url, "SELECT * FROM history.transaction_events ORDER BY 1, 2")
    assert after == before


async def test_a_history_elsewhere_that_was_not_told_stops_at_the_first_event_of_the_new_epoch(
    fresh: PipelineSettings, pipeline: Pipeline
) -> None:
    elsewhere = fresh.model_copy(update={"history_database_url": await pipeline.backup(fresh.database_url)})
    wallets = await pipeline.start(fresh)
    backup = await pipeline.backup(fresh.database_url)
    await pipeline.move(fresh, wallets, 1)
    await consume(elsewhere)
    restored = restored_to(fresh, backup)
    await begin_epoch(restored)
    await pipeline.move(restored, wallets, 1)
    halted = await consume(elsewhere)
    assert halted
    assert all("walletctl history rebuild" in why for why in halted.values())
    reconciled = elsewhere.model_copy(update={"database_url": backup})
    assert HISTORY in await differing(reconciled)
    await rebuild(reconciled)
    assert await consume(reconciled) == {}
    await assert_verified(reconciled, superseded=EVENTS_A_ROUND)


async def test_events_that_were_still_to_be_published_go_out_in_the_new_epoch_and_arrive(
    running: PipelineSettings, pipeline: Pipeline
) -> None:
    wallets = await pipeline.start(running, 0)
    async with api_engine(running.database_url) as engine:
        await move_money(engine, wallets, 1)
    backup = await pipeline.backup(running.database_url)
    # The relay of the old database publishes them too.
    await run_relay(running)
    await consume(running)
    restored = restored_to(running, backup)
    assert (await begin_epoch(restored)).pending == EVENTS_A_ROUND
    await rebuild(restored)
    await run_relay(restored)
    assert await consume(restored) == {}
    await assert_verified(restored, superseded=0)
    assert (await audit(restored)).horizon.topic_duplicates == EVENTS_A_ROUND
    epochs = await select(backup, "SELECT source_epoch, count(*) FROM wallet.outbox GROUP BY 1 ORDER BY 1")
    assert epochs == [(1, WALLETS_MADE), (2, EVENTS_A_ROUND)]


async def test_without_begin_reused_versions_are_an_alarm_and_begin_is_the_way_out_late_too(
    running: PipelineSettings, pipeline: Pipeline
) -> None:
    wallets = await pipeline.start(running)
    backup = await pipeline.backup(running.database_url)
    await pipeline.move(running, wallets, 2)
    await consume(running)
    restored = restored_to(running, backup)
    conflicts = REGISTRY.get_sample_value("history_conflicts_total") or 0
    await pipeline.move(restored, wallets, 1)
    await consume(restored)
    assert (REGISTRY.get_sample_value("history_conflicts_total") or 0) > conflicts
    assert {HISTORY, TOPIC, DEAD_LETTERS} <= await differing(restored)
    await begin_epoch(restored, "late")
    done = await rebuild(restored)
    assert (done.missing, done.retried.left.total()) == (0, 0)
    await pipeline.move(restored, wallets, 1)
    assert await consume(restored) == {}
    await assert_verified(restored, superseded=2 * EVENTS_A_ROUND)


async def test_an_epoch_that_a_second_restore_undoes_is_not_used_again(
    running: PipelineSettings, pipeline: Pipeline
) -> None:
    wallets = await pipeline.start(running)
    backup = await pipeline.backup(running.database_url)
    first = restored_to(running, await pipeline.backup(running.database_url))
    await begin_epoch(first)
    await rebuild(first)
    await pipeline.move(first, wallets, 2)
    assert await consume(first) == {}
    second = restored_to(first, backup)
    # The topic alone has the epoch: the history may have been restored along with the wallets.
    with pytest.raises(TopicUnfitError, match="walletctl restore begin"):
        await rebuild(second, "topic")
    assert (await begin_epoch(second)).epoch == 3
    await rebuild(second)
    await pipeline.move(second, wallets, 1)
    assert await consume(second) == {}
    await assert_verified(second, superseded=2 * EVENTS_A_ROUND)


async def test_an_epoch_is_found_in_the_topic_behind_all_that_a_stranger_wrote_since(
    fresh: PipelineSettings, pipeline: Pipeline
) -> None:
    wallets = await pipeline.start(fresh)
    backup = await pipeline.backup(fresh.database_url)
    first = restored_to(fresh, await pipeline.backup(fresh.database_url))
    await begin_epoch(first)
    await pipeline.move(first, wallets, 1)
    with ForeignProducer(fresh.kafka_bootstrap_servers, fresh.kafka_topic) as foreign_producer:
        for partition in range(3):
            foreign_producer.write(*[b"{"] * 150, partition=partition)
        foreign_producer.commit()
        assert (await begin_epoch(restored_to(first, backup))).epoch == 3


@pytest.fixture
def during_a_rebuild(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[PipelineSettings, Callable[[], Awaitable[Any]]], Any]:
    """Rebuild, and run something when the new tables are filled and not yet in their place."""

    async def run(settings: PipelineSettings, something: Callable[[], Awaitable[Any]]) -> None:
        analyze = shadow.analyze

        async def do_it_and_analyze(connection: AsyncConnection) -> None:
            await something()
            await analyze(connection)

        with monkeypatch.context() as patch:
            patch.setattr(shadow, "analyze", do_it_and_analyze)
            await rebuild(settings)

    return run


async def test_a_history_whose_rebuild_was_overtaken_by_begin_stops_at_the_next_event(
    fresh: PipelineSettings, pipeline: Pipeline, during_a_rebuild: Any
) -> None:
    wallets = await pipeline.start(fresh)
    backup = await pipeline.backup(fresh.database_url)
    await pipeline.move(fresh, wallets, 1)
    await consume(fresh)
    restored = restored_to(fresh, backup)
    await during_a_rebuild(restored, lambda: begin_epoch(restored, "too late"))
    await pipeline.move(restored, wallets, 1)
    halted = await consume(restored)
    assert halted
    assert all("walletctl history rebuild" in why for why in halted.values())
    assert HISTORY in await differing(restored)
    await rebuild(restored)
    assert await consume(restored) == {}
    await assert_verified(restored, superseded=EVENTS_A_ROUND)


async def test_a_rebuild_that_reads_events_of_a_newer_epoch_fails_and_the_history_stays_stopped(
    fresh: PipelineSettings, pipeline: Pipeline, during_a_rebuild: Any
) -> None:
    wallets = await pipeline.start(fresh)
    restored = restored_to(fresh, await pipeline.backup(fresh.database_url))

    async def begin_and_go_on() -> None:
        await begin_epoch(restored, "too late")
        await pipeline.move(restored, wallets, 1)

    with pytest.raises(TopicUnfitError, match="events of a source epoch after 1"):
        await during_a_rebuild(restored, begin_and_go_on)
    assert sorted(await consume(restored)) == [0, 1, 2]
    await rebuild(restored)
    assert await consume(restored) == {}
    await assert_verified(restored, superseded=0)


async def test_a_relay_that_still_runs_on_the_old_database_changes_nothing_and_is_found(
    running: PipelineSettings, pipeline: Pipeline
) -> None:
    wallets = await pipeline.start(running)
    restored = restored_to(running, await pipeline.backup(running.database_url))
    await begin_epoch(restored)
    await rebuild(restored)
    # The history has some of these events. Others are of versions that the restored database will assign again.
    await replay(running, Selection(event_type="WALLET_CREATED"))
    await pipeline.move(running, wallets, 1)
    await pipeline.move(restored, wallets, 1)
    assert await consume(restored) == {}
    letters = await select(
        restored.history_database_url, "SELECT reason, count(*) FROM history.dead_letters GROUP BY 1"
    )
    assert letters == [("superseded", EVENTS_A_ROUND)]
    assert await differing(restored) == {DEAD_LETTERS, TOPIC}
    # The old relay is stopped: all its records lie before the next epoch.
    assert (await begin_epoch(restored)).epoch == 3
    done = await rebuild(restored)
    assert (done.superseded, done.retried.left.total()) == (EVENTS_A_ROUND, 0)
    await assert_verified(restored, superseded=EVENTS_A_ROUND)


async def test_an_epoch_begins_between_events_beside_live_traffic(
    fresh: PipelineSettings, pipeline: Pipeline, eventually: Callable[..., Awaitable[Any]]
) -> None:
    wallets = await pipeline.start(fresh, 0)
    done = asyncio.Event()

    async def epochs() -> list[int]:
        return [row[0] for row in await select(fresh.database_url, "SELECT source_epoch FROM wallet.outbox")]

    async with api_engine(fresh.database_url) as engine, asyncio.TaskGroup() as tasks:
        for work in (lambda: move_money(engine, wallets, 1), lambda: run_relay(fresh)):
            tasks.create_task(repeat(work, done))
        for epoch in (2, 3, 4):
            assert (await begin_epoch(fresh)).epoch == epoch

            async def is_written_in(epoch: int = epoch) -> bool:
                return (await epochs()).count(epoch) > EVENTS_A_ROUND

            await eventually(is_written_in)
        done.set()
    await run_relay(fresh)
    await rebuild(fresh)
    assert await consume(fresh) == {}
    # Nothing was restored, so nothing is lost: each event belongs to one epoch.
    await assert_verified(fresh, superseded=0)


async def test_each_lost_event_is_listed_once_and_no_other(fresh: PipelineSettings, pipeline: Pipeline) -> None:
    wallets = await pipeline.start(fresh)
    assert await find_lost(fresh, 10) == LossReport()
    restored = restored_to(fresh, await pipeline.backup(fresh.database_url))
    await pipeline.move(fresh, wallets, 1)
    await replay(fresh)
    await run_relay(fresh)
    await pipeline.move(restored, wallets, 1)
    report = await find_lost(restored, 3)
    assert report.count == EVENTS_A_ROUND
    assert len(report.events) == 3


async def test_an_epoch_begins_though_the_topic_no_longer_keeps_any_record(
    fresh: PipelineSettings, pipeline: Pipeline, kafka_admin: AdminClient
) -> None:
    await pipeline.start(fresh)
    async with open_topic(fresh.kafka, fresh.kafka_topic, "tests", expired="fail") as topic:
        ends = {partition: high for partition, (_, high) in (await topic.offsets()).items()}
    parts = [TopicPartition(fresh.kafka_topic, partition, end) for partition, end in ends.items()]
    for future in kafka_admin.delete_records(parts).values():
        await asyncio.wrap_future(future)
    start = await begin_epoch(fresh)
    assert (start.epoch, start.topic_ends) == (2, ends)
    assert (await find_lost(fresh, 1)).count == 0


async def test_an_epoch_that_is_refused_leaves_the_history_as_it_was(settings: PipelineSettings) -> None:
    """A missing grant, a read-only server or a trigger fails the command before the first commit."""
    await tamper(
        settings.database_url,
        "CREATE FUNCTION wallet.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''refused''; END'",
        "CREATE TRIGGER refuse BEFORE INSERT ON wallet.source_epochs FOR EACH ROW EXECUTE FUNCTION wallet.refuse()",
    )
    stored = "SELECT * FROM history.processed_offsets ORDER BY partition"
    before = await select(settings.history_database_url, stored)
    with pytest.raises(DBAPIError, match="refused"):
        await begin_epoch(settings, "a drill")
    assert await select(settings.history_database_url, stored) == before
    await tamper(settings.database_url, "DROP TRIGGER refuse ON wallet.source_epochs")
    assert (await begin_epoch(settings, "a drill")).epoch == 2


async def test_an_epoch_whose_commit_fails_is_reported_and_can_be_started_again(settings: PipelineSettings) -> None:
    await tamper(
        settings.database_url,
        "CREATE FUNCTION wallet.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''refused''; END'",
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON wallet.source_epochs DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION wallet.refuse()",
    )
    with pytest.raises(DBAPIError, match="refused") as refusal:
        await begin_epoch(settings, "a drill")
    assert "run restore begin again" in refusal.value.__notes__[0]
    await tamper(settings.database_url, "DROP TRIGGER refuse ON wallet.source_epochs")
    assert (await begin_epoch(settings, "a drill")).epoch == 2
