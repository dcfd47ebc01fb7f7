"""The tables of API keys in the schema `wallet`, with the reason for each CHECK and index."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Identity, Index, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB

from common.tables.base import TIMESTAMP, metadata, now_column

api_keys = Table(
    "api_keys",
    metadata,
    # The id in the key. It isn't secret.
    Column("id", Text, primary_key=True),
    # The id of the first key of a chain of rotations: the caller stays the same.
    Column("caller_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    # The SHA-256 of the whole key. The key itself is stored nowhere.
    Column("hash", BYTEA, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    # NULL means the wallets of all users.
    Column("user_id", Text),
    now_column(),
    Column("expires_at", TIMESTAMP),
    Column("revoked_at", TIMESTAMP),
    # Written by the APIs every 30 seconds at most.
    Column("last_used_at", TIMESTAMP),
    Column("rotated_from", Text, ForeignKey("wallet.api_keys.id")),
    # The id of the latest audit row about this key. A new maximum tells the APIs to read the keys again.
    Column("revision", BigInteger, nullable=False),
    # A SHA-256 has 32 bytes.
    CheckConstraint("length(hash) = 32", "hash"),
    # A key without a scope could do nothing.
    CheckConstraint("cardinality(scopes) > 0", "scopes"),
    # The limit of the wallets' users.
    CheckConstraint("length(user_id) BETWEEN 1 AND 64", "user_id"),
    # A key has one successor at most.
    Index("api_keys_rotated_from_key", "rotated_from", unique=True),
    # The APIs ask for the highest revision once a second.
    Index("api_keys_revision_idx", "revision"),
    schema="wallet",
    # Free space lets the update of `last_used_at` stay on its page and change no index (HOT).
    postgresql_with={"fillfactor": "50"},
)

api_key_audit = Table(
    "api_key_audit",
    metadata,
    # The operators' acts on the API keys: actor, time, act, details and reason.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    now_column(),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    # No foreign key: the audit outlives the keys.
    Column("key_id", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
    Column("reason", Text),
    # The acts on one key.
    Index("api_key_audit_key_id_idx", "key_id"),
    schema="wallet",
)
