"""The tables of the schema `wallet`, with the reason for each CHECK and index."""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSON, JSONB

from common.tables.base import TIMESTAMP, metadata


def _created_at(name: str = "created_at") -> Column[Any]:
    return Column(name, TIMESTAMP, nullable=False, server_default=func.now())


wallets = Table(
    "wallets",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("balance_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("status", Text, nullable=False, server_default=text("'active'")),
    Column("external_id", Text),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    _created_at(),
    _created_at("updated_at"),
    # The last line of defence: whatever the code does, no wallet goes below zero.
    CheckConstraint("balance_minor >= 0", "balance"),
    # Version 1 is the creation.
    CheckConstraint("version >= 1", "version"),
    CheckConstraint("length(user_id) BETWEEN 1 AND 64", "user_id"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", "currency"),
    CheckConstraint("status IN ('active', 'frozen', 'closed')", "status"),
    # A user's wallets, newest first, by keyset.
    Index("wallets_user_id_id_idx", "user_id", "id"),
    # A client's own name for a wallet can't be given twice.
    Index(
        "wallets_user_id_external_id_key",
        "user_id",
        "external_id",
        unique=True,
        postgresql_where=text("external_id IS NOT NULL"),
    ),
    schema="wallet",
    # Balances change in place: free room on each page keeps those updates off the indexes (HOT).
    postgresql_with={"fillfactor": "70"},
)

wallet_transactions = Table(
    "wallet_transactions",
    metadata,
    # The ledger. A movement's entries are numbered from 1 and sum to zero; the statement trigger
    # `wallet_transactions_balanced` refuses anything else, `wallet_transactions_immutable` any change.
    Column("transaction_id", Uuid, primary_key=True),
    Column("entry", SmallInteger, primary_key=True),
    # NULL is the currency's `world` account: where money comes from and goes to. It has no row to be hot.
    Column("wallet_id", Uuid, ForeignKey("wallet.wallets.id")),
    Column("wallet_version", BigInteger),
    Column("counterparty_wallet_id", Uuid),
    Column("type", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("balance_after_minor", BigInteger),
    Column("reference", Text),
    Column("metadata", JSONB),
    _created_at(),
    CheckConstraint("type IN ('FUND', 'TRANSFER')", "type"),
    CheckConstraint("amount_minor <> 0", "amount"),
    CheckConstraint("balance_after_minor >= 0", "balance_after"),
    # A wallet's entry says at which version and with what balance; the world's has neither.
    CheckConstraint(
        "(wallet_id IS NULL) = (wallet_version IS NULL) AND (wallet_id IS NULL) = (balance_after_minor IS NULL)",
        "wallet",
    ),
    # One entry a version: two movements can never claim the same one. Also the ledger's keyset.
    Index(
        "wallet_transactions_wallet_id_wallet_version_key",
        "wallet_id",
        "wallet_version",
        unique=True,
        postgresql_where=text("wallet_id IS NOT NULL"),
    ),
    schema="wallet",
)

OUTBOX_CHANNEL: Final = "outbox"
"""Where a NOTIFY says that there may be something to publish."""

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # No unique index: it is a UUIDv7 with 48 random bits, and each index here is written twice.
    Column("event_id", Uuid, nullable=False),
    Column("aggregate_id", Uuid, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("event_type", Text, nullable=False),
    # `json`, not `jsonb`: the bytes that were encoded are the bytes that are produced.
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
    # In which epoch it was written, or last made pending: the newest of `source_epochs` by then.
    Column("source_epoch", Integer, nullable=False, server_default=text("1")),
    CheckConstraint("lane BETWEEN 0 AND 63", "lane"),
    # Settled means all three: where it went is part of having gone.
    CheckConstraint(
        "(published_at IS NULL) = (kafka_partition IS NULL) AND (published_at IS NULL) = (kafka_offset IS NULL)",
        "settled",
    ),
    CheckConstraint("published_at IS NULL OR parked_at IS NULL", "parked"),
    # Only a parked row is ever given up. It keeps `parked_at`: so whatever looks for pending rows passes it by.
    CheckConstraint("skipped_at IS NULL OR parked_at IS NOT NULL", "skipped"),
    # What a relay reads: pending rows of a lane in their order, and nothing else. A parked wallet's rows are
    # out of it, however many they are.
    Index("outbox_pending_idx", "lane", "id", postgresql_where=text("published_at IS NULL AND parked_at IS NULL")),
    # Wallets that wait behind a parked row; all but empty. Nobody waits behind a skipped one.
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
    # One row an epoch: the first is the migration's, each other one began when the database had been restored to an
    # earlier time. It says who said so, when and why, and where the topic ended by then: what lies before that in an
    # older epoch, and isn't in the outbox, tells of what no longer happened.
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    _created_at("began_at"),
    Column("actor", Text, nullable=False),
    Column("reason", Text),
    Column("topic_id", Text, nullable=False, server_default=text("''")),
    Column("topic_ends", JSONB, nullable=False, server_default=text("'{}'")),
    CheckConstraint("epoch >= 1", "epoch"),
    schema="wallet",
)

outbox_lanes = Table(
    "outbox_lanes",
    metadata,
    # 64 rows, made by the migration. The row lock is the relay's lease on the lane.
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),
    # A hint: every row of the lane up to this id has been published, so a scan may begin behind it.
    Column("low_water", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("lane BETWEEN 0 AND 63", "lane"),
    schema="wallet",
    postgresql_with={"fillfactor": "20"},
)

outbox_audit = Table(
    "outbox_audit",
    metadata,
    # What operators did to the outbox: who, when, what and why.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _created_at(),
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
    # One row, made by the migration: what retention took. `walletctl verify` holds what is missing against it.
    Column("id", SmallInteger, primary_key=True, autoincrement=False, server_default=text("1")),
    Column("row_count", BigInteger, nullable=False, server_default=text("0")),
    # The wallet versions that those rows told, and the latest time of them.
    Column("version_count", BigInteger, nullable=False, server_default=text("0")),
    Column("up_to_id", BigInteger, nullable=False, server_default=text("0")),
    Column("up_to_created_at", TIMESTAMP),
    CheckConstraint("id = 1", "id"),
    schema="wallet",
    postgresql_with={"fillfactor": "20"},
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    # Written with its reply, at the end of the transaction that began with a claim (an advisory lock) of the key.
    Column("key", Text, primary_key=True),
    Column("request_hash", BYTEA, nullable=False),
    Column("reply_status", SmallInteger),
    Column("reply_headers", JSON),
    Column("reply_body", BYTEA),
    _created_at(),
    # Where retention finds old keys. BRIN: a few bytes for each 128 pages, and next to nothing to write.
    Index("idempotency_keys_created_at_idx", "created_at", postgresql_using="brin"),
    schema="wallet",
)
