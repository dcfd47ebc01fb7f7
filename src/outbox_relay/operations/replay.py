"""Replay: makes published rows pending again, in order; the relays publish them."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from common.actor import actor
from outbox_relay.leases import retry_while_leased
from outbox_relay.operations import queries

_CHUNK_ROWS_MAX: Final = 1000


@dataclass(frozen=True)
class Selection:
    """A selection of outbox rows. A filter that is None matches every row. Ids are inclusive, `created_to` is not."""

    from_id: int | None = None
    to_id: int | None = None
    wallet_id: UUID | None = None
    event_type: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None

    def is_empty(self) -> bool:
        """Whether it selects every row."""
        return all(value is None for value in asdict(self).values())


async def count_replayable(engine: AsyncEngine, selection: Selection) -> tuple[int, int, int]:
    """Return how many published rows are selected, and their lowest and highest id."""
    async with engine.connect() as connection:
        return await queries.count_replayable(connection, asdict(selection))


async def replay(
    engine: AsyncEngine,
    selection: Selection,
    *,
    rate_per_second: float | None = None,
    reason: str | None = None,
) -> AsyncIterator[list[int]]:
    """Make selected published rows pending again, in order, so that the relays publish them again.

    Safe at any time: consumers drop duplicates. Only rows that exist at the start are replayed. To continue an
    interrupted replay, set `from_id` to the last reported id plus one.

    Args:
        engine: the wallet database.
        selection: the rows to replay.
        rate_per_second: the most rows a second.
        reason: why, for the audit.

    Yields:
        The ids of each chunk, which is committed.
    """
    count, _, highest = await count_replayable(engine, selection)
    bounded: dict[str, Any] = {**asdict(selection), "to_id": min(highest, selection.to_id or highest)}
    async with engine.begin() as connection:
        filters = orjson.dumps({key: value for key, value in asdict(selection).items() if value is not None})
        await queries.audit(connection, actor(), "replay", filters.decode(), count, reason)
    chunk_rows = _CHUNK_ROWS_MAX if rate_per_second is None else max(1, min(_CHUNK_ROWS_MAX, int(rate_per_second)))
    after_id = 0
    while True:
        started = time.monotonic()
        ids = await _make_pending(engine, bounded, after_id, chunk_rows)
        if not ids:
            return
        after_id = ids[-1]
        yield ids
        if rate_per_second is not None:
            await asyncio.sleep(max(0.0, len(ids) / rate_per_second - (time.monotonic() - started)))


@retry_while_leased
async def _make_pending(engine: AsyncEngine, selection: dict[str, Any], after_id: int, limit: int) -> list[int]:
    async with engine.begin() as connection:
        return await queries.make_pending(connection, selection, after_id, limit)
