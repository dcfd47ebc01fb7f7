"""The history's status: the consumers' positions, the gaps and dead letters, and the topic's settings."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException
from sqlalchemy.ext.asyncio import AsyncEngine

from common.events.headers import FIRST_SOURCE_EPOCH
from common.kafka.connection import KafkaConnection
from common.kafka.refusals import explained, refusal_of
from common.kafka.topic_settings import settings_warning, wrong_settings
from common.kafka.topics import TopicMissingError, describe_topic, end_offsets, find_topic
from history_consumer import gap_queries
from history_consumer.operations import status_queries


@dataclass(frozen=True)
class Broker:
    """How to connect to the brokers, and how long the topic must keep events, in milliseconds; -1 is for ever."""

    connection: KafkaConnection
    retention_ms: int


@dataclass(frozen=True)
class HistoryStatus:
    """The history's status.

    Args:
        partitions: `consumer_group, topic, partition, next_offset, topic_id, source_epoch, updated_at,
            high_watermark, lag`; the last two are None if the broker is away or the partition is missing.
        wallets: how many wallets the history has.
        events: how many history rows there are.
        gaps: how many wallets miss a version.
        old_gaps: how many of them miss it for more than 30 s, which is an alarm.
        oldest_gaps: `wallet_id, user_id, event_count, max_version, updated_at, open_since, is_old`.
        dead_letters: how many there are.
        conflicts: how many dead letters claim a version that another event has, which is an alarm.
        kafka: "ok", or why the broker could not be asked.
        topics_wrong: a line for each topic whose settings may lose events.
        topics_unchecked: a line for each topic whose settings could not be read.
    """

    partitions: Sequence[Mapping[str, Any]]
    wallets: int
    events: int
    gaps: int
    old_gaps: int
    oldest_gaps: Sequence[Mapping[str, Any]]
    dead_letters: int
    conflicts: int
    kafka: str
    topics_wrong: Sequence[str]
    topics_unchecked: Sequence[str]

    @property
    def lag(self) -> int | None:
        """How many records are still to be applied; None if the broker could not be asked."""
        lags = [row["lag"] for row in self.partitions]
        return None if None in lags else sum(lags)

    @property
    def is_stopped(self) -> bool:
        """Whether the wallet database was restored and the history has not been rebuilt since."""
        return any(row["source_epoch"] < FIRST_SOURCE_EPOCH for row in self.partitions)


async def history_status(engine: AsyncEngine, broker: Broker | None, gaps_max: int = 10) -> HistoryStatus:
    """Return the history's status; without a broker, without lags.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        await connection.execute(gap_queries.KEEP_TABLES)
        positions = await status_queries.positions(connection)
        counts = await status_queries.status(connection)
        gaps = await status_queries.oldest_gaps(connection, gaps_max)
        alarms = await gap_queries.alarms(connection)
    kafka = "not asked"
    ends: dict[tuple[str, int], int] = {}
    wrong: list[str] = []
    unchecked: list[str] = []
    if broker is not None:
        kafka, ends = await _ends(broker.connection, {(row["topic"], row["partition"]) for row in positions})
        if kafka == "ok":
            wrong, unchecked = await _check_topics(broker, {row["topic"] for row in positions})
    partitions = []
    for row in positions:
        end = ends.get((row["topic"], row["partition"]))
        lag = None if end is None else max(0, end - row["next_offset"])
        partitions.append({**row, "high_watermark": end, "lag": lag})
    return HistoryStatus(
        partitions=partitions,
        wallets=counts["wallets"],
        events=counts["events"],
        gaps=counts["gaps"],
        old_gaps=alarms["old_gaps"],
        oldest_gaps=[dict(row) for row in gaps],
        dead_letters=counts["dead_letters"],
        conflicts=alarms["conflicts"],
        kafka=kafka,
        topics_wrong=wrong,
        topics_unchecked=unchecked,
    )


async def _check_topics(broker: Broker, topics: Collection[str]) -> tuple[list[str], list[str]]:
    """Return a line for each topic whose settings may lose events, and for each whose settings could not be read."""
    wrong: list[str] = []
    unchecked: list[str] = []
    for topic in sorted(topics):
        try:
            found = wrong_settings(await find_topic(broker.connection, topic), broker.retention_ms)
        except (KafkaException, TopicMissingError) as error:
            unchecked.append(f"the settings of topic {topic} could not be checked: {error}")
            continue
        if found:
            wrong.append(settings_warning(topic, found))
    return wrong, unchecked


async def _ends(
    connection: KafkaConnection, partitions: Collection[tuple[str, int]]
) -> tuple[str, dict[tuple[str, int], int]]:
    """Return "ok" or what is wrong, and the end offset of each partition that the broker has."""
    state = "ok"
    ends: dict[tuple[str, int], int] = {}
    for topic in sorted({topic for topic, _ in partitions}):
        try:
            _, partition_count = await describe_topic(connection, topic)
            found = await end_offsets(connection, topic, partition_count)
        except TopicMissingError:
            state = f"away: topic {topic} does not exist"
        except KafkaException as error:
            how = "refuses" if refusal_of(error.args[0]) else "away"
            state = f"{how}: {explained(error.args[0])}"
        else:
            ends |= {(topic, partition): end for partition, end in found.items()}
            if missing := sorted({partition for name, partition in partitions if name == topic} - found.keys()):
                state = f"away: topic {topic} has no partition {', '.join(map(str, missing))}"
    return state, ends
