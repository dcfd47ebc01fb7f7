"""Outbox rows for tests: writing them, reading them, draining them."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.identifiers import lane_of, new_id
from outbox_relay.relay import Relay


async def drain(relay: Relay) -> int:
    """Run until nothing is pending that this relay can claim; return how many rows left the queue."""
    total = 0
    while done := await relay.run_once():
        total += done
    return total


@dataclass(frozen=True)
class Outbox:
    """The outbox as the tests write and read it."""

    engine: AsyncEngine

    async def write(self, wallet_id: UUID, count: int = 1, payload: str = "{}") -> None:
        async with self.engine.begin() as connection:
            await write_rows(connection, wallet_id, count, payload)

    async def rows(self) -> list[RowMapping]:
        async with self.engine.connect() as connection:
            return list((await connection.execute(text("SELECT * FROM wallet.outbox ORDER BY id"))).mappings())


async def write_rows(connection: AsyncConnection, wallet_id: UUID, count: int, payload: str = "{}") -> None:
    """Write rows in a transaction of the caller's."""
    # As the wallet API does: the transaction has its id before it takes its first outbox id.
    await connection.execute(text("SELECT pg_current_xact_id()"))
    await connection.execute(
        text("""
            INSERT INTO wallet.outbox (event_id, aggregate_id, lane, event_type, payload, created_at)
            SELECT event_id, :wallet_id, :lane, 'TEST', cast(:payload AS json), now()
            FROM unnest(cast(:event_ids AS uuid[])) WITH ORDINALITY AS events (event_id, number) ORDER BY number
        """),
        {
            "event_ids": [new_id() for _ in range(count)],
            "wallet_id": wallet_id,
            "lane": lane_of(wallet_id),
            "payload": payload,
        },
    )
