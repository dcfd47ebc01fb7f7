"""The SQL of the outbox: new rows, and the notification of relays."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson

from common.postgres.raw_sql import RawStatement, unless_empty
from common.tables.outbox import OUTBOX_CHANNEL

INSERT_OUTBOX_WHERE: Final = """
    INSERT INTO wallet.outbox (event_id, aggregate_id, lane, event_type, payload, headers, created_at, source_epoch)
    SELECT event_id, aggregate_id, lane, event_type, payload::json, headers::json, :created_at,
        (SELECT max(epoch) FROM wallet.source_epochs)
    FROM unnest(
        cast(:event_ids AS uuid[]), cast(:aggregate_ids AS uuid[]), cast(:lanes AS smallint[]),
        cast(:event_types AS text[]), cast(:payloads AS text[]), cast(:event_headers AS text[])
    ) WITH ORDINALITY AS row (event_id, aggregate_id, lane, event_type, payload, headers, position)
    WHERE {only}
    ORDER BY position
"""
INSERT_OUTBOX: Final = RawStatement(INSERT_OUTBOX_WHERE.format(only="true"))

NOTIFY_RELAYS: Final = f"NOTIFY {OUTBOX_CHANNEL}"
# A firewall may drop the connection silently. No other bound ends the wait then.
_NOTIFY_SECONDS_MAX: Final = 5.0


async def insert_outbox(
    connection: asyncpg.Connection, rows: Sequence[Mapping[str, Any]], created_at: datetime
) -> None:
    """Write outbox rows in the order given: `event_id, aggregate_id, lane, event_type, payload, headers`."""
    await INSERT_OUTBOX.fetch(connection, **outbox_parameters(rows, created_at))


def outbox_parameters(rows: Sequence[Mapping[str, Any]], created_at: datetime) -> dict[str, Any]:
    """Return the parameters of INSERT_OUTBOX_WHERE."""
    return {
        "event_ids": [row["event_id"] for row in rows],
        "aggregate_ids": [row["aggregate_id"] for row in rows],
        "lanes": [row["lane"] for row in rows],
        "event_types": [row["event_type"] for row in rows],
        "payloads": [row["payload"] for row in rows],
        "event_headers": unless_empty([row["headers"] and orjson.dumps(row["headers"]).decode() for row in rows]),
        "created_at": created_at,
    }


async def notify_relays(connection: asyncpg.Connection) -> None:
    """Notify the relays that the outbox may have new events."""
    await connection.execute(NOTIFY_RELAYS, timeout=_NOTIFY_SECONDS_MAX)
