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

from common.tables.base import TIMESTAMP, metadata
from common.tables.wallet import _created_at

transaction_events = Table(
    "transaction_events",
    metadata,
    # One row for each wallet an event touched. The key is what dedupes, for ever.
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
    # `json`, not `jsonb`: the event as it came, byte for byte.
    Column("event_data", JSON, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    _created_at("recorded_at"),
    CheckConstraint("wallet_version >= 1", "wallet_version"),
    CheckConstraint("direction IN ('in', 'out')", "direction"),
    CheckConstraint("amount_minor > 0", "amount"),
    # A user's history in the order of events (ids are UUIDv7), and one event touches a wallet once.
    Index("transaction_events_user_id_event_id_key", "user_id", "event_id", "wallet_id", unique=True),
    schema="history",
)

wallet_progress = Table(
    "wallet_progress",
    metadata,
    # Completeness in one look: as many events as the highest version means no gap.
    Column("wallet_id", Uuid, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("max_version", BigInteger, nullable=False),
    _created_at("updated_at"),
    CheckConstraint("event_count BETWEEN 1 AND max_version", "event_count"),
    Index("wallet_progress_user_id_idx", "user_id"),
    # No index on what an update changes, not even one for gaps: so each update is HOT, and writes no index.
    schema="history",
    postgresql_with={"fillfactor": "70"},
)

processed_offsets = Table(
    "processed_offsets",
    metadata,
    # The consumer's position, moved by compare-and-set in the transaction of the rows.
    Column("consumer_group", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
    # A recreated topic has another id: its offsets mean something else.
    Column("topic_id", Text, nullable=False),
    # Up to which epoch of the wallet database the history is in line with it; 0: with none, until it is rebuilt.
    Column("source_epoch", Integer, nullable=False, server_default=text("1")),
    _created_at("updated_at"),
    CheckConstraint("next_offset >= 0", "next_offset"),
    CheckConstraint("source_epoch >= 0", "source_epoch"),
    schema="history",
    postgresql_with={"fillfactor": "20"},
)

dead_letters = Table(
    "dead_letters",
    metadata,
    # Records that could not be applied, whole, with the reason.
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
    _created_at(),
    # One record is one dead letter, however often it is read.
    Index("dead_letters_record_key", "topic_id", "partition", "offset", unique=True),
    schema="history",
)
