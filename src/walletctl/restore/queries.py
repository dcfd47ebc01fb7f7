"""The SQL of epochs, and of the events that a restored database still has."""

from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.identifiers import LANES
from history_consumer.projection import HistoryRow
from outbox_relay.leases import lock_lanes

# Keeps requests from writing events until the transaction ends. A relay holds no lane: the leases are taken first.
LOCK_OUTBOX: Final = text("LOCK TABLE wallet.outbox IN SHARE ROW EXCLUSIVE MODE")

BEGIN_EPOCH: Final = text("""
    INSERT INTO wallet.source_epochs (epoch, actor, reason, topic_id, topic_ends)
    SELECT greatest(max(epoch), :known) + 1, :actor, :reason, :topic_id, cast(:topic_ends AS jsonb)
    FROM wallet.source_epochs
    RETURNING epoch
""")

# The restored database has the events that are still to be published: they belong to the new epoch.
TAKE_OVER_UNPUBLISHED: Final = text("UPDATE wallet.outbox SET source_epoch = :epoch WHERE published_at IS NULL")

HISTORY_EPOCH: Final = text("""
    SELECT coalesce(max(source_epoch), 0) FROM history.processed_offsets WHERE topic = :topic
""")

HALT_HISTORY: Final = text("""
    UPDATE history.processed_offsets SET source_epoch = 0, updated_at = statement_timestamp() WHERE topic = :topic
""")

# A movement has a ledger entry at its version. A wallet's creation has none.
KNOWN_EVENTS: Final = text("""
    SELECT asked.event_id
    FROM unnest(
        cast(:event_ids AS uuid[]), cast(:wallet_ids AS uuid[]), cast(:versions AS bigint[]),
        cast(:transaction_ids AS uuid[])
    ) AS asked (event_id, wallet_id, version, transaction_id)
    WHERE CASE WHEN transaction_id IS NULL THEN EXISTS (
        SELECT FROM wallet.wallets WHERE wallets.id = asked.wallet_id
    ) ELSE EXISTS (
        SELECT FROM wallet.wallet_transactions AS entry
        WHERE entry.wallet_id = asked.wallet_id AND entry.wallet_version = asked.version
            AND entry.transaction_id = asked.transaction_id
    ) END
""")


async def history_epoch(connection: AsyncConnection, topic: str) -> int:
    """Return the newest source epoch with which the history is in line; 0 while it is halted."""
    return int(await connection.scalar(HISTORY_EPOCH, {"topic": topic}) or 0)


async def halt_history(connection: AsyncConnection, topic: str) -> None:
    """Keep the consumers of the topic from applying any event, until the history is rebuilt."""
    await connection.execute(HALT_HISTORY, {"topic": topic})


async def begin_epoch(
    connection: AsyncConnection, known: int, actor: str, reason: str | None, topic_id: str, ends: Mapping[int, int]
) -> tuple[int, int]:
    """Start the epoch after the newest one known; return its number, and how many events are not published yet.

    Takes the leases of all lanes, and keeps requests from writing events, until the transaction ends.
    """
    await lock_lanes(connection, range(LANES))
    await connection.execute(LOCK_OUTBOX)
    parameters = {
        "known": known,
        "actor": actor,
        "reason": reason,
        "topic_id": topic_id,
        "topic_ends": orjson.dumps({str(partition): end for partition, end in ends.items()}).decode(),
    }
    epoch = (await connection.execute(BEGIN_EPOCH, parameters)).scalar_one()
    taken_over = await connection.execute(TAKE_OVER_UNPUBLISHED, {"epoch": epoch})
    return epoch, taken_over.rowcount


async def known_events(connection: AsyncConnection, events: Collection[HistoryRow]) -> set[UUID]:
    """Return the ids of the events that the wallet database has; `events` has one row for each."""
    parameters = {
        "event_ids": [row.event_id for row in events],
        "wallet_ids": [row.wallet_id for row in events],
        "versions": [row.wallet_version for row in events],
        "transaction_ids": [row.transaction_id for row in events],
    }
    return set((await connection.execute(KNOWN_EVENTS, parameters)).scalars())
