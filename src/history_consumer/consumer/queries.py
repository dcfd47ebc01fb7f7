"""The consumer's SQL: one statement for each table and batch, with arrays as parameters and `unnest` inside."""

from collections.abc import Collection, Sequence
from typing import Any, Final, Literal

from sqlalchemy import TextClause, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.events.headers import FIRST_SOURCE_EPOCH
from common.postgres.errors import DRIVER_ERRORS
from history_consumer.consumer.deduplication import ExistingEvents
from history_consumer.consumer.positions import Position
from history_consumer.consumer.records import DeadLetter, headers_json
from history_consumer.projection import HistoryRow

Into = Literal["", "_rebuild"]
"""The suffix of the tables: none for the live ones, `_rebuild` for those that a rebuild fills beside them."""


def _for_both(statement: str) -> dict[Into, TextClause]:
    return {"": text(statement.replace("{into}", "")), "_rebuild": text(statement.replace("{into}", "_rebuild"))}


# Locks no row. PostgreSQL refuses it if the role or the database may not write.
PING: Final = text("SELECT FROM history.processed_offsets LIMIT 0 FOR SHARE")

# A partition that was added to the topic has the source epoch of the group's other partitions.
INSERT_POSITIONS: Final = text("""
    INSERT INTO history.processed_offsets (consumer_group, topic, partition, next_offset, topic_id, source_epoch)
    SELECT :consumer_group, :topic, partition, 0, :topic_id, coalesce((
        SELECT max(source_epoch) FROM history.processed_offsets
        WHERE consumer_group = :consumer_group AND topic = :topic
    ), :first_epoch)
    FROM unnest(cast(:partitions AS integer[])) AS row (partition)
    ORDER BY partition
    ON CONFLICT DO NOTHING
""")

READ_POSITIONS: Final = text("""
    SELECT partition, next_offset, topic_id, source_epoch FROM history.processed_offsets
    WHERE consumer_group = :consumer_group AND topic = :topic AND partition = ANY(cast(:partitions AS integer[]))
    ORDER BY partition
""")

# Compare-and-set: the join doesn't find a row that another consumer has moved. Locked in the order of partitions.
MOVE_POSITIONS: Final = text("""
    WITH move AS MATERIALIZED (
        SELECT stored.partition, move.next_offset
        FROM unnest(
            cast(:partitions AS integer[]), cast(:expected AS bigint[]),
            cast(:next_offsets AS bigint[]), cast(:topic_ids AS text[]), cast(:source_epochs AS integer[])
        ) AS move (partition, expected, next_offset, topic_id, source_epoch)
        JOIN history.processed_offsets AS stored
            ON stored.consumer_group = :consumer_group AND stored.topic = :topic
            AND stored.partition = move.partition
            AND stored.next_offset = move.expected AND stored.topic_id = move.topic_id
            AND stored.source_epoch = move.source_epoch
        ORDER BY stored.partition
        FOR UPDATE OF stored
    )
    UPDATE history.processed_offsets AS stored
    SET next_offset = move.next_offset, updated_at = statement_timestamp()
    FROM move
    WHERE stored.consumer_group = :consumer_group AND stored.topic = :topic AND stored.partition = move.partition
    RETURNING stored.partition
""")

# Always in the order of wallets: batches of several consumers update the same wallets, and must not deadlock.
_ADD_PROGRESS: Final = """
    INSERT INTO history.wallet_progress{into} AS stored (wallet_id, user_id, event_count, max_version, updated_at)
    SELECT wallet_id, min(user_id), count(*), max(wallet_version), statement_timestamp()
    FROM {rows}
    GROUP BY wallet_id
    ORDER BY wallet_id
    ON CONFLICT (wallet_id) DO UPDATE SET
        event_count = stored.event_count + excluded.event_count,
        max_version = greatest(stored.max_version, excluded.max_version),
        updated_at = excluded.updated_at
"""
_UNNESTED: Final = """unnest(
        cast(:wallet_ids AS uuid[]), cast(:user_ids AS text[]), cast(:wallet_versions AS bigint[])
    ) AS row (wallet_id, user_id, wallet_version)"""
ADD_PROGRESS: Final = _for_both(_ADD_PROGRESS.replace("{rows}", _UNNESTED))

# No conflict target: the (wallet, version) dedupes, and so does the (user, event, wallet).
_INSERT_ROWS: Final = """
    WITH inserted AS (
        INSERT INTO history.transaction_events{into} (
            wallet_id, wallet_version, event_id, event_type, user_id, transaction_id, direction, amount_minor,
            currency, balance_after_minor, counterparty_wallet_id, event_data, created_at, recorded_at
        )
        SELECT wallet_id, wallet_version, event_id, event_type, user_id, transaction_id, direction, amount_minor,
            currency, balance_after_minor, counterparty_wallet_id, event_data::json, created_at, statement_timestamp()
        FROM unnest(
            cast(:wallet_ids AS uuid[]), cast(:wallet_versions AS bigint[]), cast(:event_ids AS uuid[]),
            cast(:event_types AS text[]), cast(:user_ids AS text[]), cast(:transaction_ids AS uuid[]),
            cast(:directions AS text[]), cast(:amounts AS bigint[]), cast(:currencies AS text[]),
            cast(:balances AS bigint[]), cast(:counterparties AS uuid[]), cast(:event_data AS text[]),
            cast(:created_at AS timestamptz[])
        ) WITH ORDINALITY AS row (
            wallet_id, wallet_version, event_id, event_type, user_id, transaction_id, direction, amount_minor,
            currency, balance_after_minor, counterparty_wallet_id, event_data, created_at, number
        )
        ORDER BY number
        ON CONFLICT DO NOTHING
        RETURNING wallet_id, user_id, wallet_version
    ), counted AS ({add_progress})
    SELECT count(*) FROM inserted
"""
INSERT_ROWS: Final = _for_both(_INSERT_ROWS.replace("{add_progress}", _ADD_PROGRESS.replace("{rows}", "inserted")))

READ_EXISTING: Final = _for_both("""
    SELECT stored.wallet_id, stored.wallet_version, stored.event_id
    FROM unnest(cast(:wallet_ids AS uuid[]), cast(:wallet_versions AS bigint[])) AS row (wallet_id, wallet_version)
    JOIN history.transaction_events{into} AS stored USING (wallet_id, wallet_version)
    UNION
    SELECT stored.wallet_id, stored.wallet_version, stored.event_id
    FROM unnest(
        cast(:user_ids AS text[]), cast(:event_ids AS uuid[]), cast(:wallet_ids AS uuid[])
    ) AS row (user_id, event_id, wallet_id)
    JOIN history.transaction_events{into} AS stored USING (user_id, event_id, wallet_id)
""")

INSERT_DEAD_LETTERS: Final = _for_both("""
    INSERT INTO history.dead_letters{into} (topic, partition, "offset", topic_id, key, value, headers, reason, detail)
    SELECT :topic, partition, "offset", topic_id, key, value, headers::json, reason, detail
    FROM unnest(
        cast(:partitions AS integer[]), cast(:offsets AS bigint[]), cast(:topic_ids AS text[]),
        cast(:keys AS bytea[]), cast(:values AS bytea[]), cast(:headers AS text[]),
        cast(:reasons AS text[]), cast(:details AS text[])
    ) AS row (partition, "offset", topic_id, key, value, headers, reason, detail)
    ORDER BY partition, "offset"
    -- Only for the same record: an id that is used already, because the sequence is behind, is an error.
    ON CONFLICT (topic_id, partition, "offset") DO NOTHING
""")


async def ping(connection: AsyncConnection) -> None:
    """Run a statement that fails if the database is away, lacks the tables or may not write."""
    await connection.execute(PING)


async def read_positions(
    connection: AsyncConnection, consumer_group: str, topic: str, partitions: Collection[int]
) -> list[Position]:
    """Return the stored positions of these partitions."""
    parameters = {"consumer_group": consumer_group, "topic": topic, "partitions": sorted(partitions)}
    return [Position(*row) for row in (await connection.execute(READ_POSITIONS, parameters)).all()]


async def ensure_positions(
    connection: AsyncConnection, consumer_group: str, topic: str, topic_id: str, partitions: Collection[int]
) -> list[Position]:
    """Return the positions of all these partitions; store offset 0 of this topic for those without one."""
    parameters = {
        "consumer_group": consumer_group,
        "topic": topic,
        "topic_id": topic_id,
        "first_epoch": FIRST_SOURCE_EPOCH,
        "partitions": sorted(partitions),
    }
    await connection.execute(INSERT_POSITIONS, parameters)
    return await read_positions(connection, consumer_group, topic, partitions)


async def move_positions(
    connection: AsyncConnection, consumer_group: str, topic: str, moves: Sequence[tuple[Position, int]]
) -> set[int]:
    """Move each position to its offset, if the database has it where it is expected; return the partitions moved."""
    parameters = {
        "consumer_group": consumer_group,
        "topic": topic,
        "partitions": [position.partition for position, _ in moves],
        "expected": [position.next_offset for position, _ in moves],
        "next_offsets": [next_offset for _, next_offset in moves],
        "topic_ids": [position.topic_id for position, _ in moves],
        "source_epochs": [position.source_epoch for position, _ in moves],
    }
    return set((await connection.execute(MOVE_POSITIONS, parameters)).scalars())


async def copy_rows(connection: AsyncConnection, rows: Sequence[HistoryRow], into: Into = "") -> None:
    """Write rows that are all new, in the order given; `add_progress` counts them to their wallets.

    COPY takes half of the time of INSERT from arrays, here and in PostgreSQL (docs/performance.md), but has no
    ON CONFLICT.

    Raises:
        sqlalchemy.exc.DBAPIError: the database refuses or is away; the transaction must be rolled back.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    table = f"transaction_events{into}"
    try:
        await driver.copy_records_to_table(table, schema_name="history", columns=HistoryRow._fields, records=rows)
    except DRIVER_ERRORS as error:
        raise OperationalError(f"COPY history.{table}", None, error) from error


async def insert_rows(connection: AsyncConnection, rows: Sequence[HistoryRow], into: Into = "") -> int:
    """Write the rows that the history hasn't got, in the order given, and count them to their wallets.

    Returns how many rows were new.
    """
    parameters = {
        "wallet_ids": [row.wallet_id for row in rows],
        "wallet_versions": [row.wallet_version for row in rows],
        "event_ids": [row.event_id for row in rows],
        "event_types": [row.event_type for row in rows],
        "user_ids": [row.user_id for row in rows],
        "transaction_ids": [row.transaction_id for row in rows],
        "directions": [row.direction for row in rows],
        "amounts": [row.amount_minor for row in rows],
        "currencies": [row.currency for row in rows],
        "balances": [row.balance_after_minor for row in rows],
        "counterparties": [row.counterparty_wallet_id for row in rows],
        "event_data": [row.event_data for row in rows],
        "created_at": [row.created_at for row in rows],
    }
    return int(await connection.scalar(INSERT_ROWS[into], parameters) or 0)


async def read_existing(connection: AsyncConnection, rows: Collection[HistoryRow], into: Into = "") -> ExistingEvents:
    """Return the events of the history that have a (wallet, version) or an (event, wallet) of these rows."""
    parameters = {
        "wallet_ids": [row.wallet_id for row in rows],
        "wallet_versions": [row.wallet_version for row in rows],
        "user_ids": [row.user_id for row in rows],
        "event_ids": [row.event_id for row in rows],
    }
    stored = (await connection.execute(READ_EXISTING[into], parameters)).all()
    return ExistingEvents(
        events={(wallet_id.int, version): event_id for wallet_id, version, event_id in stored},
        versions={(event_id.int, wallet_id.int): version for wallet_id, version, event_id in stored},
    )


async def add_progress(connection: AsyncConnection, rows: Sequence[HistoryRow], into: Into = "") -> None:
    """Count rows that `copy_rows` wrote to their wallets."""
    parameters = {
        "wallet_ids": [row.wallet_id for row in rows],
        "user_ids": [row.user_id for row in rows],
        "wallet_versions": [row.wallet_version for row in rows],
    }
    await connection.execute(ADD_PROGRESS[into], parameters)


async def insert_dead_letters(
    connection: AsyncConnection, topic: str, dead_letters: Sequence[DeadLetter], into: Into = ""
) -> None:
    """Store the records as dead letters, whole; a record that is stored already stays as it is."""
    parameters = {
        "topic": topic,
        "partitions": [letter.record.partition for letter in dead_letters],
        "offsets": [letter.record.offset for letter in dead_letters],
        "topic_ids": [letter.record.position.topic_id for letter in dead_letters],
        "keys": [letter.record.key for letter in dead_letters],
        "values": [letter.record.value for letter in dead_letters],
        "headers": [headers_json(letter.record.headers) for letter in dead_letters],
        "reasons": [letter.poison.reason for letter in dead_letters],
        "details": [letter.poison.detail for letter in dead_letters],
    }
    await connection.execute(INSERT_DEAD_LETTERS[into], parameters)
