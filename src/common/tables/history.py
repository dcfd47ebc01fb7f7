"""The tables of the schema `history`, with the reason for each CHECK and index."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSON

from common.tables.base import TIMESTAMP, metadata, now_column

transaction_events = Table(
    "transaction_events",
    metadata,
    # One row for each wallet that an event touched. The primary key deduplicates the events, for ever.
    Column("wallet_id", Uuid, primary_key=True),
    Column("wallet_version", BigInteger, primary_key=True),
    Column("event_id", Uuid, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("transaction_id", Uuid),
    Column("direction", Text),
    Column("amount_minor", BigInteger),
    Column("currency", Text, nullable=False),
    Column("balance_after_minor", BigInteger, nullable=False),
    Column("counterparty_wallet_id", Uuid),
    # `json`, not `jsonb`, keeps the event byte for byte.
    Column("event_data", JSON, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    now_column("recorded_at"),
    # Version 1 is the wallet's creation.
    CheckConstraint("wallet_version >= 1", "wallet_version"),
    # An event moves money into the wallet, out of it, or not at all (NULL).
    CheckConstraint("direction IN ('in', 'out')", "direction"),
    # The direction gives the sign.
    CheckConstraint("amount_minor > 0", "amount"),
    # Pages of a user's history, in the order of the events (their ids are UUIDv7). An event touches a wallet only once.
    Index("transaction_events_user_id_event_id_key", "user_id", "event_id", "wallet_id", unique=True),
    schema="history",
)

wallet_progress = Table(
    "wallet_progress",
    metadata,
    # A wallet's history is complete if it has as many events as its highest version.
    Column("wallet_id", Uuid, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("max_version", BigInteger, nullable=False),
    now_column("updated_at"),
    # There are never more events than versions.
    CheckConstraint("event_count BETWEEN 1 AND max_version", "event_count"),
    # Whether the histories of all of a user's wallets are complete.
    Index("wallet_progress_user_id_idx", "user_id"),
    # There is no index on the columns that an update changes, not even one on gaps. So each update is HOT.
    schema="history",
    # Free space on each page for HOT updates.
    postgresql_with={"fillfactor": "70"},
)

processed_offsets = Table(
    "processed_offsets",
    metadata,
    # The consumer's position. The transaction that writes the rows moves it, by compare-and-set.
    Column("consumer_group", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
    # A topic that was deleted and created again has a new id, and its offsets begin anew.
    Column("topic_id", Text, nullable=False),
    # The newest source epoch with which the history agrees. 0: it agrees with none until it is rebuilt.
    Column("source_epoch", Integer, nullable=False, server_default=text("1")),
    now_column("updated_at"),
    # Kafka's offsets begin at 0.
    CheckConstraint("next_offset >= 0", "next_offset"),
    # Epochs begin at 1; 0 has the meaning above.
    CheckConstraint("source_epoch >= 0", "source_epoch"),
    schema="history",
    # Each batch updates a row: free space on the page keeps the updates HOT.
    postgresql_with={"fillfactor": "20"},
)

dead_letters = Table(
    "dead_letters",
    metadata,
    # Records that could not be applied: each whole record, with the reason.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("topic_id", Text, nullable=False),
    Column("key", BYTEA),
    Column("value", BYTEA),
    Column("headers", JSON, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    now_column(),
    # A record is one dead letter, however often consumers read it.
    Index("dead_letters_record_key", "topic_id", "partition", "offset", unique=True),
    schema="history",
)
