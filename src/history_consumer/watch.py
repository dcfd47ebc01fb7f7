"""Looking at the servers from time to time, since an idle consumer wouldn't notice what happened to them."""

import asyncio
from typing import Final

from confluent_kafka.admin import AdminClient
from sqlalchemy.ext.asyncio import AsyncEngine

from common.kafka import describe_topic
from common.worker import Health
from history_consumer import queries
from history_consumer.consumer import HistoryConsumer
from history_consumer.failures import database_errors, kafka_errors

_PING_TIMEOUT_SECONDS: Final = 10.0


class Watch:
    """Tells `/ready` what answers, and the consumer when its topic is another one: the client wouldn't notice."""

    def __init__(
        self, consumer: HistoryConsumer, engine: AsyncEngine, admin: AdminClient, topic: str, health: Health
    ) -> None:
        self._consumer = consumer
        self._engine = engine
        self._admin = admin
        self._topic = topic
        self._health = health

    async def run_once(self) -> int:
        """Look once; return 0, so that a pause follows.

        Raises:
            TemporaryError: a server is away.
        """
        with database_errors():
            async with asyncio.timeout(_PING_TIMEOUT_SECONDS), self._engine.connect() as connection:
                await queries.ping(connection)
        self._health.ok("database")
        with kafka_errors():
            topic_id, _ = await describe_topic(self._admin, self._topic)
        self._consumer.note_topic(topic_id)
        self._health.checks["kafka"] = self._consumer.assignment.state()
        return 0
