"""Putting the filled tables in the place of the live ones, in one short transaction."""

import asyncio
from typing import Final

from sqlalchemy.exc import DBAPIError

from common.postgres.errors import DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, sqlstate
from common.postgres.reading import fetch_one
from common.settings import PipelineSettings
from history_consumer.position_queries import stored_positions
from history_consumer.rebuild import queries, shadow
from history_consumer.rebuild.errors import TablesAlteredError, TopicUnfitError
from history_consumer.rebuild.filling import Filling
from history_consumer.rebuild.shadow import LiveTables

_ATTEMPTS_MAX: Final = 120
_PAUSE_SECONDS: Final = 1.0
_BUSY: Final = {LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED}


async def swap(filling: Filling, settings: PipelineSettings, live: LiveTables) -> None:
    """Swap the tables. While a long transaction reads the live ones, try again every second, for some minutes.

    Args:
        filling: has filled the new tables.
        settings: the consumer group and the topic whose positions move.
        live: the live tables as they were before.

    Raises:
        CannotRebuildError: the topic or the live tables changed.
        TimeoutError: the broker went away.
        sqlalchemy.exc.DBAPIError: the database is away, or other transactions hold the live tables.
    """
    for attempt in range(1, _ATTEMPTS_MAX + 1):
        await filling.read_on()
        try:
            await _swap_once(filling, settings, live)
        except DBAPIError as error:
            if sqlstate(error) not in _BUSY or attempt == _ATTEMPTS_MAX:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return


async def _swap_once(filling: Filling, settings: PipelineSettings, live: LiveTables) -> None:
    """Lock the positions, so that consumers wait; read up to them, put the new tables in place, move the positions.

    Readers wait only from the lock on the tables to the commit. The consumer finds its positions where it
    left them, or finds that they have moved, and then joins again.
    """
    connection, group, result = filling.connection, (settings.consumer_group, settings.kafka_topic), filling.result
    async with connection.begin():
        await shadow.keep_vacuum_out(connection)
        positions = await stored_positions(connection, *group, lock=True)
        offsets = await filling.topic.offsets()
        if await filling.topic.is_recreated():
            raise TopicUnfitError(f"{filling.topic.name} was recreated during the rebuild: start again")
        ends = {
            partition: min(high, positions[partition].next_offset)
            for partition, (_, high) in offsets.items()
            if partition in positions and positions[partition].topic_id == filling.topic.id
        }
        reached = await filling.read_topic(ends)
        await shadow.lock_live(connection)
        if await shadow.describe(connection) != live:
            raise TablesAlteredError("the history's tables were altered or migrated during the rebuild: start again")
        figures = await fetch_one(connection, queries.REBUILT)
        await shadow.swap(connection)
        await queries.set_positions(connection, *group, filling.topic.id, filling.epoch.number, reached)
    result.rows, result.wallets, result.positions = figures["rows"], figures["wallets"], reached
