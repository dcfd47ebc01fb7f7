"""The tables of the outbox, of its epochs and of its audit, with the reason for each CHECK and index."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from common.tables.base import TIMESTAMP, metadata, now_column

OUTBOX_CHANNEL: Final = "outbox"
"""The channel of the NOTIFY that tells relays of new outbox rows."""

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # It needs no unique index: a UUIDv7 has 48 random bits, and each row would write the index twice.
    Column("event_id", Uuid, nullable=False),
    Column("aggregate_id", Uuid, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("event_type", Text, nullable=False),
    # `json`, not `jsonb`: the relay publishes exactly the bytes that the API encoded.
    Column("payload", JSON, nullable=False),
    Column("headers", JSON),
    Column("created_at", TIMESTAMP, nullable=False),
    Column("published_at", TIMESTAMP),
    Column("kafka_partition", Integer),
    Column("kafka_offset", BigInteger),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Text),
    Column("parked_at", TIMESTAMP),
    Column("skipped_at", TIMESTAMP),
    # The newest epoch of `source_epochs` when the row was written or last became pending.
    Column("source_epoch", Integer, nullable=False, server_default=text("1")),
    # The lanes of `outbox_lanes`.
    CheckConstraint("lane BETWEEN 0 AND 63", "lane"),
    # A published row has its partition and its offset, and only a published row has them.
    CheckConstraint(
        "(published_at IS NULL) = (kafka_partition IS NULL) AND (published_at IS NULL) = (kafka_offset IS NULL)",
        "settled",
    ),
    # A row is published or parked, never both.
    CheckConstraint("published_at IS NULL OR parked_at IS NULL", "parked"),
    # Only a parked row can be skipped. It keeps `parked_at`, so that no query takes it for a pending row.
    CheckConstraint("skipped_at IS NULL OR parked_at IS NOT NULL", "skipped"),
    # A relay reads the pending rows of a lane in order. Parked rows are not in the index and cost the relay nothing.
    Index("outbox_pending_idx", "lane", "id", postgresql_where=text("published_at IS NULL AND parked_at IS NULL")),
    # Whether a wallet has a parked row, behind which its later rows wait. A skipped row stops no other row.
    Index(
        "outbox_parked_idx",
        "aggregate_id",
        "id",
        postgresql_where=text("parked_at IS NOT NULL AND skipped_at IS NULL"),
    ),
    schema="wallet",
)

source_epochs = Table(
    "source_epochs",
    metadata,
    # One row for each epoch; the migration writes the first one. After a restore to an earlier time,
    # `walletctl restore begin` writes the next one. It has the actor, the reason and the topic's ends at that moment.
    # A record of an older epoch before those ends that has no outbox row tells of a movement that the restore undid.
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    now_column("began_at"),
    Column("actor", Text, nullable=False),
    Column("reason", Text),
    Column("topic_id", Text, nullable=False, server_default=text("''")),
    Column("topic_ends", JSONB, nullable=False, server_default=text("'{}'")),
    # The first epoch is 1.
    CheckConstraint("epoch >= 1", "epoch"),
    schema="wallet",
)

outbox_lanes = Table(
    "outbox_lanes",
    metadata,
    # The migration writes the 64 rows. A relay's lock on a row is its lease on the lane.
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),
    # All rows of the lane up to this id are published, so a scan for pending rows may begin after it.
    Column("low_water", BigInteger, nullable=False, server_default=text("0")),
    # `LANES` in `common/identifiers.py`.
    CheckConstraint("lane BETWEEN 0 AND 63", "lane"),
    schema="wallet",
    postgresql_with={"fillfactor": "20"},
)

outbox_audit = Table(
    "outbox_audit",
    metadata,
    # The operators' actions on the outbox: actor, time, action and reason.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    now_column(),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("selection", JSONB, nullable=False),
    Column("row_count", BigInteger, nullable=False),
    Column("reason", Text),
    schema="wallet",
)

outbox_pruned = Table(
    "outbox_pruned",
    metadata,
    # One row, which the migration writes: how much retention has pruned. `walletctl verify` compares the gaps with it.
    Column("id", SmallInteger, primary_key=True, autoincrement=False, server_default=text("1")),
    Column("row_count", BigInteger, nullable=False, server_default=text("0")),
    # How many wallet versions the pruned rows had, their highest id, and their latest time.
    Column("version_count", BigInteger, nullable=False, server_default=text("0")),
    Column("up_to_id", BigInteger, nullable=False, server_default=text("0")),
    Column("up_to_created_at", TIMESTAMP),
    # There is only one row.
    CheckConstraint("id = 1", "id"),
    schema="wallet",
    postgresql_with={"fillfactor": "20"},
)

verified_horizons = Table(
    "verified_horizons",
    metadata,
    # Up to where the last clean `walletctl verify` of a topic and its consumer group has compared everything. Only
    # `walletctl verify --since` reads it (decision 0032).
    Column("topic", Text, primary_key=True),
    Column("consumer_group", Text, primary_key=True),
    Column("up_to", TIMESTAMP, nullable=False),
    # The snapshots of the last clean run of everything, and of the last clean run.
    Column("full_at", TIMESTAMP, nullable=False),
    Column("taken_at", TIMESTAMP, nullable=False),
    # What must be the same for the horizon to hold: the databases, the tables and the topic, and the number of rows.
    Column("identity", JSONB, nullable=False),
    Column("counts", JSONB, nullable=False),
    # By partition, the first offset that was not read.
    Column("read_to", JSONB, nullable=False),
    schema="wallet",
)
