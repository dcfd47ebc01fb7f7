"""Inspection: what operators ask about the outbox."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay.operations import queries
from outbox_relay.operations.replay import Selection

State = Literal["all", "pending", "parked", "skipped", "published"]


async def status(engine: AsyncEngine) -> RowMapping:
    """Return the counts and ages of the whole outbox, by the names of the STATUS query's columns."""
    async with engine.connect() as connection:
        return await queries.status(connection)


async def list_rows(engine: AsyncEngine, state: State, selection: Selection, limit: int) -> Sequence[RowMapping]:
    """Return selected rows without their payload, newest first."""
    async with engine.connect() as connection:
        return await queries.list_rows(connection, state, asdict(selection), limit)


async def show_row(engine: AsyncEngine, name: str) -> RowMapping | None:
    """Return one row by its outbox id or its event id; None if there is none.

    Raises:
        ValueError: `name` is neither a number nor a UUID.
    """
    row_id, event_id = (int(name), None) if name.isascii() and name.isdigit() else (None, UUID(name))
    if row_id is not None and row_id >= 2**63:
        return None
    async with engine.connect() as connection:
        return await queries.show_row(connection, row_id, event_id)
