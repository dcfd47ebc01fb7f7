"""From the topic to the history, without processes: a test takes the steps by hand."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from history_consumer.consumer.consumer import HistoryConsumer
from support.history_events import Topic


@dataclass(frozen=True)
class HistoryPipeline:
    """A topic to produce to, consumers that read it, and the history that they write.

    `rows` runs a superuser's statements. `consumer` and `operator` log in as their roles.
    """

    topic: Topic
    new_consumer: Callable[..., HistoryConsumer]
    consumer: AsyncEngine
    operator: AsyncEngine
    rows: Callable[..., Awaitable[list[Any]]]

    async def position(self, partition: int = 0) -> int:
        """Return the partition's stored position; -1 if it has none."""
        found = await self.rows(
            "SELECT next_offset FROM history.processed_offsets WHERE topic = :topic AND partition = :partition",
            topic=self.topic.name,
            partition=partition,
        )
        return int(found[0][0]) if found else -1

    def reached(self, offset: int, partition: int = 0) -> Callable[[], Awaitable[bool]]:
        """Return a condition: the history's position in the partition is this offset."""

        async def holds() -> bool:
            return await self.position(partition) == offset

        return holds
