"""Building the history again beside the live one.

The order of the steps makes it safe. The rebuild first asks the wallet database what is published, and then the topic
for its ends: each published event lies before those ends. The ledger comes last, when every version that has an event
is in the new tables. An event that comes twice is written once, by (wallet, version), as the consumer does it.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.epochs import Epoch, current_epoch
from common.kafka.topic_reader import open_topic
from common.postgres.engine import operator_engine
from common.postgres.reading import fetch_value, read_only_snapshot
from common.progress import Progress, no_progress
from common.settings import PipelineSettings
from history_consumer.consumer.deduplication import SUPERSEDED
from history_consumer.operations.dead_letter_retry import retry_dead_letters
from history_consumer.position_queries import stored_positions
from history_consumer.rebuild import queries, shadow
from history_consumer.rebuild.errors import RebuildUnderWayError, TopicUnfitError
from history_consumer.rebuild.filling import Filling
from history_consumer.rebuild.result import RebuildResult, Source
from history_consumer.rebuild.swap import swap


async def rebuild(
    settings: PipelineSettings, source: Source = "auto", *, progress: Progress = no_progress
) -> RebuildResult:
    """Build the history again while the read API serves the old one, and swap the two.

    A rebuild that fails leaves the old history as it was. The next rebuild starts from nothing.

    Args:
        settings: the databases, the topic and the consumer group whose positions move.
        source: `auto` takes the topic alone if that has everything, else the outbox and then the topic.
        progress: shows how far the reading is.

    Raises:
        CannotRebuildError: its subclasses say why; the history is as it was.
        TimeoutError: Kafka is away.
        sqlalchemy.exc.DBAPIError: a database is away, or transactions hold the old tables for minutes.
    """
    result = RebuildResult()
    async with (
        operator_engine(settings.history_database_url) as history,
        open_topic(settings.kafka, settings.kafka_topic, "walletctl-rebuild", expired="fail") as topic,
    ):
        async with _locked(history) as connection:
            live = await shadow.create(connection)
            async with _wallets(settings) as wallets:
                epoch = await current_epoch(wallets)
            lows = {partition: low for partition, (low, _) in (await topic.offsets()).items()}
            filling = Filling(connection, topic, epoch, lows, result, progress)
            await _fill(filling, settings, source)
            await shadow.analyze(connection)
            await swap(filling, settings, live)
        await _clear_dead_letters(history, epoch, result)
    return result


@asynccontextmanager
async def _locked(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Lend the connection that holds the rebuild's lock and does all its work: without the lock it cannot swap."""
    async with engine.connect() as connection:
        if not await connection.scalar(queries.LOCK):
            raise RebuildUnderWayError("another rebuild is under way, and nothing was done: wait for it")
        await connection.execute(queries.PREPARE)
        await connection.commit()
        try:
            yield connection
        finally:
            # The session has the lock, and settings of its own: the pool must not lend it again.
            await connection.invalidate()


def _wallets(settings: PipelineSettings) -> AbstractAsyncContextManager[AsyncConnection]:
    return read_only_snapshot(settings.database_url, "walletctl-rebuild")


async def _fill(filling: Filling, settings: PipelineSettings, source: Source) -> None:
    result = filling.result
    result.why = "asked for" if source == "outbox" else await _why_not_topic(filling, settings, source)
    if not result.why:
        result.missing = await _fill_from_topic(filling, settings)
        if result.missing:
            result.why = f"the topic lacks {result.missing:,} versions that were published"
    if result.why and source == "topic":
        await shadow.drop(filling.connection)
        raise TopicUnfitError(f"{result.why}: rebuild with --from outbox")
    if result.why:
        result.source = "outbox"
        result.missing = await _fill_from_wallets(filling, settings)


async def _why_not_topic(filling: Filling, settings: PipelineSettings, source: Source) -> str:
    """Return why the topic alone is not enough, or an empty text."""
    topic = filling.topic
    if not filling.lows:
        return f"there is no topic {topic.name}"
    for partition, low in filling.lows.items():
        if low:
            return f"partition {partition} of {topic.name} begins at offset {low:,}"
    if any(filling.epoch.begins_at(topic.id, partition) for partition in filling.lows):
        return f"the wallet database was restored: {topic.name} has events that the restore undid"
    async with filling.connection.begin():
        positions = await stored_positions(filling.connection, settings.consumer_group, settings.kafka_topic)
    # A recreated topic may be complete again. `--from topic` takes it, unless versions are missing.
    if source == "auto" and any(position.topic_id != topic.id for position in positions.values()):
        return f"{topic.name} was recreated"
    return ""


async def _fill_from_topic(filling: Filling, settings: PipelineSettings) -> int:
    """Fill the tables from the topic; return how many published versions are missing."""
    async with _wallets(settings) as wallets:
        published = int(await fetch_value(wallets, queries.PUBLISHED_VERSIONS))
    await filling.read_on()
    return await filling.missing(published)


async def _fill_from_wallets(filling: Filling, settings: PipelineSettings) -> int:
    """Fill the tables from the outbox, the topic and, if need be, the ledger; return how many versions are missing."""
    async with _wallets(settings) as wallets:
        published = int(await fetch_value(wallets, queries.PUBLISHED_VERSIONS))
        await filling.read_outbox(wallets)
        await filling.read_on()
        if await filling.missing(published):
            await filling.read_ledger(wallets)
    return await filling.missing(published)


async def _clear_dead_letters(history: AsyncEngine, epoch: Epoch, result: RebuildResult) -> None:
    """Retry what the old history could not apply, and delete the dead letters of events that a restore undid."""
    async for chunk in retry_dead_letters(history):
        result.retried.add(chunk)
    async with history.begin() as connection:
        result.superseded = await queries.drop_superseded(connection, epoch)
    result.retried.left -= Counter({SUPERSEDED: result.superseded})
