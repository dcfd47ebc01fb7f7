"""The ledger has all that an event says: the event that is made of it is the one that was lost."""

from uuid import UUID

import orjson
from sqlalchemy import text

from common.events.encoding import decode
from common.events.models import AnyEvent
from common.postgres.engine import operator_engine
from common.settings import PipelineSettings
from history_consumer.rebuild import ledger, queries

OUTBOX = text("SELECT payload::text FROM wallet.outbox")


async def test_an_event_that_is_made_from_the_ledger_is_the_one_that_the_outbox_had_but_for_its_id(
    settings: PipelineSettings,
) -> None:
    async with operator_engine(settings.database_url) as engine, engine.connect() as connection:
        events = [decode(orjson.loads(payload)) for payload in await connection.scalars(OUTBOX)]
        creations = [ledger.created(row) for row in await connection.execute(queries.CREATIONS)]
        movements = [ledger.moved(row) for row in await connection.execute(queries.MOVEMENTS)]
    assert "SPLIT_DONE" in {event.event_type for event in movements}
    made: list[AnyEvent] = [*creations, *movements]
    assert sorted(map(without_id, made)) == sorted(map(without_id, events))


def without_id(event: AnyEvent) -> str:
    return event.model_copy(update={"event_id": UUID(int=0)}).encode()
