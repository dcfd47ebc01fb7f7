"""The rebuild's SQL: its lock, the positions, the dead letters, and what the wallet database knows."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.epochs import Epoch
from history_consumer.consumer.deduplication import SUPERSEDED

# A lock of the session: it ends with the session, however that ends.
LOCK: Final = text("SELECT pg_try_advisory_lock(hashtextextended('wallet history rebuild', 0))")

# The driver keeps plans while the tables grow from nothing. Without these settings it would keep a plan that reads a
# whole table. With an empty search path the catalogue writes every name with its schema.
PREPARE: Final = text("""
    SELECT set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
        set_config('enable_mergejoin', 'off', false), set_config('search_path', '', false)
""")

REVISION: Final = text("SELECT string_agg(version_num, ',') FROM history.alembic_version")

# For the transaction. The timeout applies to each lock separately.
SET_LOCK_TIMEOUT: Final = text("""
    SELECT set_config(
        'lock_timeout', greatest(1, cast(setting::integer * cast(:deadlock_timeouts AS float) AS integer))::text, true
    )
    FROM pg_settings WHERE name = 'deadlock_timeout'
""")

SET_POSITIONS: Final = text("""
    INSERT INTO history.processed_offsets
        (consumer_group, topic, partition, next_offset, topic_id, source_epoch, updated_at)
    SELECT :consumer_group, :topic, partition, next_offset, :topic_id, :source_epoch, statement_timestamp()
    FROM unnest(cast(:partitions AS integer[]), cast(:next_offsets AS bigint[])) AS row (partition, next_offset)
    ORDER BY partition
    ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET
        next_offset = excluded.next_offset, topic_id = excluded.topic_id, source_epoch = excluded.source_epoch,
        updated_at = excluded.updated_at
""")

# The topic's other groups write into the same history: it is now in line with this epoch for them too.
SET_EPOCH: Final = text("""
    UPDATE history.processed_offsets SET source_epoch = :source_epoch
    WHERE topic = :topic AND source_epoch <> :source_epoch
""")

DROP_OTHER_POSITIONS: Final = text("""
    DELETE FROM history.processed_offsets
    WHERE consumer_group = :consumer_group AND topic = :topic AND partition <> ALL(cast(:partitions AS integer[]))
""")

# Their events were undone by a restore. The new history has every event that the wallet database knows.
DROP_SUPERSEDED: Final = text("""
    DELETE FROM history.dead_letters AS letter
    USING unnest(cast(:partitions AS integer[]), cast(:ends AS bigint[])) AS epoch (partition, end_offset)
    WHERE letter.topic_id = :topic_id AND letter.partition = epoch.partition AND letter."offset" < epoch.end_offset
        AND reason = :reason
""")

COPY_DEAD_LETTERS: Final = text("""
    INSERT INTO history.dead_letters (topic, partition, "offset", topic_id, key, value, headers, reason, detail)
    SELECT topic, partition, "offset", topic_id, key, value, headers, reason, detail
    FROM history.dead_letters_rebuild ORDER BY id
    ON CONFLICT (topic_id, partition, "offset") DO NOTHING
""")

REBUILT: Final = text("""
    SELECT coalesce(sum(event_count), 0)::bigint AS rows, count(*) AS wallets FROM history.wallet_progress_rebuild
""")

KNOWN_KEYS: Final = text("""
    SELECT wallet_id, wallet_version
    FROM unnest(cast(:wallet_ids AS uuid[]), cast(:versions AS bigint[])) AS asked (wallet_id, wallet_version)
    JOIN history.transaction_events_rebuild USING (wallet_id, wallet_version)
""")

OLD_EVENTS: Final = text("""
    SELECT wallet_id, wallet_version, event_data::text AS event_data
    FROM unnest(cast(:wallet_ids AS uuid[]), cast(:versions AS bigint[])) AS asked (wallet_id, wallet_version)
    JOIN history.transaction_events USING (wallet_id, wallet_version)
""")

# How many rows the history must have: the versions of all wallets, less those whose events are still pending.
PUBLISHED_VERSIONS: Final = text("""
    SELECT (SELECT coalesce(sum(version), 0) FROM wallet.wallets)::bigint - (
        SELECT coalesce(sum(CASE json_typeof(payload -> 'wallets') WHEN 'array' THEN
            json_array_length(payload -> 'wallets') END), 0)
        FROM wallet.outbox WHERE published_at IS NULL
    )
""")

PUBLISHED_COUNT: Final = text("SELECT count(*) FROM wallet.outbox WHERE published_at IS NOT NULL")

PUBLISHED_EVENTS: Final = text("""
    SELECT payload::text AS payload FROM wallet.outbox WHERE published_at IS NOT NULL ORDER BY id
""")

UNPUBLISHED_EVENTS: Final = text("SELECT payload::text AS payload FROM wallet.outbox WHERE published_at IS NULL")

LEDGER_COUNT: Final = text("""
    SELECT (SELECT count(*) FROM wallet.wallets) + (SELECT count(*) FROM wallet.wallet_transactions WHERE entry = 1)
""")

CREATIONS: Final = text("""
    SELECT id AS wallet_id, user_id, currency, external_id, metadata::text AS metadata, created_at
    FROM wallet.wallets ORDER BY id
""")

# One row for each movement, with the wallets that it changed in the order of its entries: the acting wallet is first.
MOVEMENTS: Final = text("""
    SELECT transaction_id, type, abs(coalesce(nullif(amount_minor, 0), acting.held_minor)) AS amount_minor, currency,
        reference, external_id, metadata::text AS metadata, details::text AS details, created_at,
        wallet_version AS version, wallets
    FROM wallet.wallet_transactions AS acting
    CROSS JOIN LATERAL (
        SELECT json_agg(
            json_build_array(wallet_id, user_id, wallet_version, balance_after_minor, held_after_minor, amount_minor)
            ORDER BY entry
        )::text AS wallets
        FROM wallet.wallet_transactions AS entry JOIN wallet.wallets ON wallets.id = entry.wallet_id
        WHERE entry.transaction_id = acting.transaction_id
    ) AS changed
    WHERE entry = 1
    ORDER BY transaction_id
""")


async def at_keys(
    connection: AsyncConnection, query: TextClause, keys: Collection[tuple[UUID, int]]
) -> Sequence[Row[Any]]:
    """Return the query's rows for these pairs of wallet and version."""
    parameters = {"wallet_ids": [key[0] for key in keys], "versions": [key[1] for key in keys]}
    return (await connection.execute(query, parameters)).all()


async def set_positions(
    connection: AsyncConnection,
    consumer_group: str,
    topic: str,
    topic_id: str,
    source_epoch: int,
    positions: Mapping[int, int],
) -> None:
    """Make these offsets, by partition, the only positions of the group in the topic, in line with this epoch."""
    partitions = sorted(positions)
    group = {"consumer_group": consumer_group, "topic": topic}
    await connection.execute(DROP_OTHER_POSITIONS, {**group, "partitions": partitions})
    next_offsets = [positions[partition] for partition in partitions]
    parameters = {**group, "topic_id": topic_id, "partitions": partitions, "next_offsets": next_offsets}
    await connection.execute(SET_POSITIONS, {**parameters, "source_epoch": source_epoch})
    await connection.execute(SET_EPOCH, {"topic": topic, "source_epoch": source_epoch})


async def drop_superseded(connection: AsyncConnection, epoch: Epoch) -> int:
    """Delete the dead letters published before the restore that began the epoch; return how many."""
    parameters = {
        "topic_id": epoch.topic_id,
        "partitions": list(epoch.topic_ends),
        "ends": list(epoch.topic_ends.values()),
        "reason": SUPERSEDED,
    }
    return (await connection.execute(DROP_SUPERSEDED, parameters)).rowcount
