"""`/ready` says `kafka: ok` only if this membership works; it reports a denial until the broker allows it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import AclOperation, AdminClient, ResourceType  # type: ignore[attr-defined]
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine

from common.kafka.groups import partitions_by_member
from common.kafka.topics import ensure_topic
from common.pauses import FAILURE_PAUSES
from common.worker import Health, TemporaryError
from history_consumer.consumer.batch_writes import Target
from history_consumer.consumer.consumer import HistoryConsumer
from history_consumer.consumer.monitor import Monitor
from history_consumer.run import consume
from history_consumer.settings import ConsumerSettings
from support.brokers_with_acls import BrokerWithAcls

Eventually = Callable[..., Awaitable[Any]]

OPERATIONS = {"group": (ResourceType.GROUP, AclOperation.READ), "topic": (ResourceType.TOPIC, AclOperation.READ)}


@pytest.fixture(params=["classic", "consumer"])
async def settings(
    request: pytest.FixtureRequest, guarded: BrokerWithAcls, database_url: str, session_timeout_seconds: float
) -> ConsumerSettings:
    """Settings of a consumer whose topic exists, and to which the broker allows nothing."""
    settings = ConsumerSettings(
        database_url=database_url,
        kafka_bootstrap_servers=guarded.bootstrap_servers,
        kafka_topic=f"wallet_events_{uuid4().hex}",
        consumer_group=f"history-{uuid4().hex}",
        consumer_group_protocol=request.param,
        consumer_poll_seconds=0.02,
        consumer_check_seconds=0.1,
        consumer_session_timeout_seconds=session_timeout_seconds,
    )
    await ensure_topic(guarded.admin, settings.kafka_topic, 1, {})
    return settings


@asynccontextmanager
async def consuming(settings: ConsumerSettings) -> AsyncIterator[Callable[[str], Callable[[], Awaitable[bool]]]]:
    """Run a consumer as its process does; yield a maker of conditions on what `/ready` says of Kafka."""
    stop, health = asyncio.Event(), Health()
    running = asyncio.create_task(consume(settings, stop, health))

    def says(what: str) -> Callable[[], Awaitable[bool]]:
        async def condition() -> bool:
            assert not running.done(), running.exception()
            said = health.checks.get("kafka", "")
            return said == "ok" if what == "ok" else what in said

        return condition

    try:
        yield says
    finally:
        stop.set()
        await asyncio.wait_for(running, 30)


def allow(guarded: BrokerWithAcls, settings: ConsumerSettings, what: str) -> None:
    resource, operation = OPERATIONS[what]
    guarded.allow(resource, name_of(settings, what), operation)


def name_of(settings: ConsumerSettings, what: str) -> str:
    return settings.consumer_group if what == "group" else settings.kafka_topic


def failures() -> float:
    return REGISTRY.get_sample_value("history_failures_total", {"dependency": "kafka"}) or 0.0


async def test_a_denial_from_the_start_is_reported_and_heals_when_the_broker_allows_it(
    guarded: BrokerWithAcls, settings: ConsumerSettings, eventually: Eventually
) -> None:
    before = failures()
    async with consuming(settings) as says:
        await eventually(says(f"READ on the topic {settings.kafka_topic} is denied to this client (User:ANONYMOUS"))
        guarded.allow(ResourceType.TOPIC, settings.kafka_topic, AclOperation.DESCRIBE)
        await eventually(says(f"READ on the group {settings.consumer_group} is denied to this client (User:ANONYMOUS"))
        allow(guarded, settings, "group")
        await eventually(says(f"READ on the topic {settings.kafka_topic} is denied"))
        assert failures() >= before + 3
        allow(guarded, settings, "topic")
        await eventually(says("ok"))


@pytest.mark.parametrize("what", ["group", "topic"])
async def test_a_later_denial_is_reported_by_an_idle_consumer_too_and_heals(
    guarded: BrokerWithAcls, settings: ConsumerSettings, eventually: Eventually, what: str
) -> None:
    for each in OPERATIONS:
        allow(guarded, settings, each)
    guarded.allow(ResourceType.TOPIC, settings.kafka_topic, AclOperation.DESCRIBE)
    async with consuming(settings) as says:
        await eventually(says("ok"))
        resource, operation = OPERATIONS[what]
        guarded.disallow(resource, name_of(settings, what), operation)
        await eventually(says(f"READ on the {what} {name_of(settings, what)} is denied"))
        # `/ready` reports it while the next memberships try.
        for _ in range(20):
            assert not await says("ok")()
            await asyncio.sleep(0.02)
        allow(guarded, settings, what)
        await eventually(says("ok"))


async def test_a_denied_consumer_backs_off(
    guarded: BrokerWithAcls, settings: ConsumerSettings, consumer_engine: AsyncEngine
) -> None:
    allow(guarded, settings, "topic")
    consumer = HistoryConsumer(settings, consumer_engine, Health())
    times: list[float] = []
    async with asyncio.timeout(40):
        while len(times) < 5:
            try:
                assert await consumer.run_once() == 0
            except TemporaryError as error:
                # The broker applies an ACL after a moment, so it may deny the topic at first.
                if "READ on the group" in str(error):
                    times.append(time.monotonic())
    await consumer.close()
    for number, (earlier, later) in enumerate(pairwise(times), start=1):
        assert later - earlier >= FAILURE_PAUSES.after(number)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_member_that_the_broker_lists_is_not_ready_before_it_reads(
    consumer_settings: ConsumerSettings, consumer_engine: AsyncEngine, eventually: Eventually, protocol: str
) -> None:
    settings = consumer_settings.model_copy(update={"consumer_group_protocol": protocol})
    group, topic, health = settings.consumer_group, settings.kafka_topic, Health()
    consumer = HistoryConsumer(settings, consumer_engine, health)
    monitor = Monitor(consumer, consumer_engine, Target(group, topic), health)

    async def is_given_partitions() -> bool:
        return any((await partitions_by_member(settings.kafka, group, topic)).values())

    try:
        # The client joins by itself. Without a poll it does not learn which partitions the group gives it.
        await consumer.group_member.joined()
        await eventually(is_given_partitions)
        await monitor.run_once()
        assert health.checks["kafka"] == f"joining the group {group}"
    finally:
        await consumer.close()


async def test_a_spare_without_partitions_is_ready(
    guarded: BrokerWithAcls, settings: ConsumerSettings, eventually: Eventually
) -> None:
    for each in OPERATIONS:
        allow(guarded, settings, each)
    async with consuming(settings) as first, consuming(settings) as second:
        await eventually(first("ok"))
        await eventually(second("ok"))
        resource, operation = OPERATIONS["group"]
        guarded.disallow(resource, settings.consumer_group, operation)
        await eventually(first("READ on the group"))
        await eventually(second("READ on the group"))


async def test_a_deleted_topic_is_reported_and_so_is_a_recreated_one(
    guarded: BrokerWithAcls, settings: ConsumerSettings, eventually: Eventually
) -> None:
    admin: AdminClient = guarded.admin
    for each in OPERATIONS:
        allow(guarded, settings, each)
    async with consuming(settings) as says:
        await eventually(says("ok"))
        await asyncio.wrap_future(admin.delete_topics([settings.kafka_topic])[settings.kafka_topic])
        await eventually(says(f"the topic {settings.kafka_topic} does not exist yet"))
        await eventually(lambda: ensure_topic(admin, settings.kafka_topic, 1, {}))
        await eventually(says("was recreated"))


@pytest.mark.parametrize("part", ["monitor", "consumer"])
async def test_a_step_that_fails_for_good_ends_the_process_and_closes_everything(
    consumer_settings: ConsumerSettings, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    async def break_(_: object) -> int:
        raise ZeroDivisionError

    async def break_too(_: object) -> None:
        raise KeyError(part)

    disposed: list[AsyncEngine] = []

    async def dispose(engine: AsyncEngine) -> None:
        disposed.append(engine)

    monkeypatch.setattr(Monitor if part == "monitor" else HistoryConsumer, "run_once", break_)
    monkeypatch.setattr(HistoryConsumer, "close", break_too)
    monkeypatch.setattr(AsyncEngine, "dispose", dispose)
    with pytest.raises(KeyError):
        await asyncio.wait_for(consume(consumer_settings, asyncio.Event(), Health()), 20)
    assert len(disposed) == 1
