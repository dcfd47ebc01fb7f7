"""A reader of the topic gets every record of a range once, notices what retention takes, and leaves no trace."""

import asyncio

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from common.kafka import topic_reader
from common.kafka.topic_reader import Expired, TopicReader, open_topic
from common.settings import KafkaSettings
from support.foreign_transactions import ForeignProducer

RECORDS_WRITTEN = 10
EXPIRED_UP_TO = 4


@pytest.fixture
def settings(kafka_bootstrap_servers: str, topic: str) -> KafkaSettings:
    """A topic with ten records in each of its first two partitions."""
    producer = Producer({"bootstrap.servers": kafka_bootstrap_servers})
    for partition in (0, 1):
        for number in range(RECORDS_WRITTEN):
            producer.produce(topic, str(number), partition=partition)
    assert producer.flush(10) == 0
    return KafkaSettings(kafka_bootstrap_servers=kafka_bootstrap_servers, kafka_topic=topic)


async def read(reader: TopicReader, begins: dict[int, int], ends: dict[int, int]) -> list[tuple[int | None, int]]:
    """Return partition and offset of each message; its value must be that offset."""
    found = []
    async for messages in reader.messages(begins, ends):
        assert all(int(message.value() or b"") == message.offset() for message in messages)
        found += [(message.partition(), message.offset() or 0) for message in messages]
    return found


async def expire(admin: AdminClient, topic: str) -> None:
    for future in admin.delete_records([TopicPartition(topic, 0, EXPIRED_UP_TO)]).values():
        await asyncio.wrap_future(future)


@pytest.mark.parametrize("expired", ["fail", "skip"])
async def test_each_record_of_a_range_is_read_once_in_order(settings: KafkaSettings, expired: Expired) -> None:
    async with open_topic(settings.kafka, settings.kafka_topic, "tests", expired=expired, checks_crcs=True) as reader:
        assert await reader.offsets() == {0: (0, RECORDS_WRITTEN), 1: (0, RECORDS_WRITTEN), 2: (0, 0)}
        found = await read(reader, {0: 2, 1: 9, 2: 0}, {0: 5, 1: RECORDS_WRITTEN, 2: 0})
        assert found == [(0, 2), (0, 3), (0, 4), (1, 9)]


async def test_a_range_that_ends_behind_a_transactions_marker_is_read_to_its_end(settings: KafkaSettings) -> None:
    with ForeignProducer(settings.kafka_bootstrap_servers, settings.kafka_topic) as foreign_producer:
        foreign_producer.write(b"0", partition=2)
        foreign_producer.commit()
        async with open_topic(settings.kafka, settings.kafka_topic, "tests", expired="fail") as reader:
            _, end = (await reader.offsets())[2]
            assert await read(reader, {2: 0}, {2: end}) == [(2, 0)]
            assert end > 1, "the marker has an offset too"


async def test_records_that_retention_took_are_skipped_and_the_new_low_is_known(
    settings: KafkaSettings, kafka_admin: AdminClient
) -> None:
    async with open_topic(settings.kafka, settings.kafka_topic, "tests", expired="skip") as reader:
        await reader.offsets()
        await expire(kafka_admin, settings.kafka_topic)
        found = await read(reader, {0: 1}, {0: 6})
        assert found == [(0, 4), (0, 5)]
        assert reader.lows[0] == EXPIRED_UP_TO


async def test_a_range_that_retention_took_whole_is_no_wait(settings: KafkaSettings, kafka_admin: AdminClient) -> None:
    async with open_topic(settings.kafka, settings.kafka_topic, "tests", expired="skip") as reader:
        await reader.offsets()
        await expire(kafka_admin, settings.kafka_topic)
        assert await read(reader, {0: 1}, {0: 3}) == []
        assert reader.lows[0] == EXPIRED_UP_TO


async def test_records_that_retention_took_are_an_error_where_all_are_needed(
    settings: KafkaSettings, kafka_admin: AdminClient
) -> None:
    async with open_topic(settings.kafka, settings.kafka_topic, "tests", expired="fail") as reader:
        await reader.offsets()
        await expire(kafka_admin, settings.kafka_topic)
        with pytest.raises(TimeoutError, match="Kafka at "):
            await read(reader, {0: 1}, {0: 6})


async def test_a_reader_commits_nothing_and_joins_no_group(settings: KafkaSettings, kafka_admin: AdminClient) -> None:
    async with open_topic(settings.kafka, settings.kafka_topic, "trace", expired="fail") as reader:
        await read(reader, {0: 0}, {0: RECORDS_WRITTEN})
        groups = await asyncio.wrap_future(kafka_admin.list_consumer_groups())
        assert [group.group_id for group in groups.valid if group.group_id.startswith("trace")] == []


async def test_a_topic_that_is_missing_has_no_partitions(settings: KafkaSettings) -> None:
    missing = settings.model_copy(update={"kafka_topic": "not-there"})
    async with open_topic(missing.kafka, missing.kafka_topic, "tests", expired="fail") as reader:
        assert (reader.id, await reader.offsets()) == ("", {})
        assert not await reader.is_recreated()


async def test_a_broker_that_sends_nothing_is_abandoned(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_reader, "_SILENCE_SECONDS_MAX", 0.2)
    async with open_topic(settings.kafka, settings.kafka_topic, "tests", expired="fail") as reader:
        # Nothing lies behind the end.
        with pytest.raises(TimeoutError, match="stopped sending partition 0 at 10"):
            await read(reader, {0: RECORDS_WRITTEN}, {0: RECORDS_WRITTEN + 1})
