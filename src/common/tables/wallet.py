"""The tables of wallets, their ledger, holds and idempotency keys, with the reason for each CHECK and index."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSON, JSONB

from common.tables.base import TIMESTAMP, metadata, now_column

wallets = Table(
    "wallets",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("balance_minor", BigInteger, nullable=False, server_default=text("0")),
    # What open holds reserve.
    Column("held_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("status", Text, nullable=False, server_default=text("'active'")),
    Column("external_id", Text),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    now_column(),
    now_column("updated_at"),
    # What a frozen wallet refuses. It is NULL if the status was set with SQL: that means all.
    Column("blocks", Text),
    # How far the balance may fall below what is held, the most that it may be (NULL: any balance), and whether
    # `velocity_limits` has rows of the wallet. The trigger `wallets_within_limits` refuses an update that spends more
    # than is available, or that receives more than the wallet may have. It compares the row with the one before,
    # because a limit may be lowered below its use (docs/decisions/0038-limits.md).
    Column("overdraft_limit_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("balance_max_minor", BigInteger),
    Column("has_velocity_limits", Boolean, nullable=False, server_default=text("false")),
    # A defect in the code can't release what is not held.
    CheckConstraint("held_minor >= 0", "held"),
    # Such limits would mean nothing.
    CheckConstraint("overdraft_limit_minor >= 0", "overdraft_limit"),
    CheckConstraint("balance_max_minor >= 0", "balance_max"),
    # Version 1 is the wallet's creation.
    CheckConstraint("version >= 1", "version"),
    # The API's own limit; it also bounds the size of the indexes.
    CheckConstraint("length(user_id) BETWEEN 1 AND 64", "user_id"),
    # The form of an ISO 4217 code.
    CheckConstraint("currency ~ '^[A-Z]{3}$'", "currency"),
    # The states that the code knows.
    CheckConstraint("status IN ('active', 'frozen', 'closed')", "status"),
    # The values that the code knows. Only a frozen wallet refuses money.
    CheckConstraint("blocks IN ('in', 'out', 'all') AND status = 'frozen' OR blocks IS NULL", "blocks"),
    # Pages of a user's wallets in the order of their ids (keyset pagination).
    Index("wallets_user_id_id_idx", "user_id", "id"),
    # A user can't have two wallets with the same external id.
    Index(
        "wallets_user_id_external_id_key",
        "user_id",
        "external_id",
        unique=True,
        postgresql_where=text("external_id IS NOT NULL"),
    ),
    schema="wallet",
    # Free space on each page lets a balance's update stay on its page and change no index (HOT).
    postgresql_with={"fillfactor": "70"},
)

wallet_transactions = Table(
    "wallet_transactions",
    metadata,
    # The ledger. A transaction's entries are numbered from 1. Their amounts sum to zero, and so does what they hold:
    # the trigger `wallet_transactions_balanced` refuses other sums. `wallet_transactions_immutable` refuses changes.
    Column("transaction_id", Uuid, primary_key=True),
    Column("entry", SmallInteger, primary_key=True),
    # NULL is the currency's world account, the source of money from outside. It has no row that all funds would lock.
    Column("wallet_id", Uuid, ForeignKey("wallet.wallets.id")),
    Column("wallet_version", BigInteger),
    Column("counterparty_wallet_id", Uuid),
    # A type of `common.events.models.TRANSACTION_EVENTS`. No CHECK lists them, so that a new operation needs no
    # migration. `walletctl verify` compares each entry's type with the transaction's event.
    Column("type", Text, nullable=False),
    # Zero in a transaction that moves no money, such as a freeze.
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("balance_after_minor", BigInteger),
    # The change of what the wallet's open holds reserve, and what they reserve after it. NULL: an older release wrote
    # the entry. The world account takes the other side of a change, and has no `held_after_minor`.
    Column("held_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("held_after_minor", BigInteger),
    # The hold that the transaction changes.
    Column("hold_id", Uuid),
    # The transaction that this one reverses, in part or whole: it is the same in all entries of a reversal.
    Column("reverses_transaction_id", Uuid),
    Column("reference", Text),
    Column("metadata", JSONB),
    # Of the first entry: what the event says besides the columns, so that a lost event can be made again.
    Column("details", JSONB),
    # Of the first entry: the client's own id of the transaction, for the acting wallet.
    Column("external_id", Text),
    # Of the first entry: the batch request that the transaction's operation was a part of.
    Column("batch_id", Uuid),
    now_column(),
    # A wallet's entry has the wallet's version and balance. The world account has neither.
    CheckConstraint(
        "(wallet_id IS NULL) = (wallet_version IS NULL) AND (wallet_id IS NULL) = (balance_after_minor IS NULL)",
        "wallet",
    ),
    # A version has one entry, so two movements can't both make it. The index also serves the pages of the ledger.
    Index(
        "wallet_transactions_wallet_id_wallet_version_key",
        "wallet_id",
        "wallet_version",
        unique=True,
        postgresql_where=text("wallet_id IS NOT NULL"),
    ),
    # Transactions by their reference. A bound caller's search reads the entries of its own wallets only, so the wallet
    # comes second. The world account's entries have no reference (docs/decisions/0033-when-a-time-is-final.md).
    Index(
        "wallet_transactions_reference_idx",
        "reference",
        "wallet_id",
        "transaction_id",
        postgresql_where=text("reference IS NOT NULL"),
    ),
    # The transactions of a hold.
    Index("wallet_transactions_hold_id_idx", "hold_id", postgresql_where=text("hold_id IS NOT NULL")),
    # The reversals of a transaction.
    Index(
        "wallet_transactions_reverses_transaction_id_idx",
        "reverses_transaction_id",
        postgresql_where=text("reverses_transaction_id IS NOT NULL"),
    ),
    # The limits that a wallet had at a version. Without it, the look-up would read the wallet's entries.
    Index("wallet_transactions_limits_idx", "wallet_id", "wallet_version", postgresql_where=text("type = 'LIMITS'")),
    # A wallet can't have two transactions with the same external id. Transactions are found by it too: the wallet comes
    # second, as in the index on references.
    Index(
        "wallet_transactions_external_id_wallet_id_key",
        "external_id",
        "wallet_id",
        unique=True,
        postgresql_where=text("external_id IS NOT NULL"),
    ),
    # The transactions of a batch request, which are at most two for each operation. The wallet comes second, as in the
    # index on references.
    Index(
        "wallet_transactions_batch_id_wallet_id_idx",
        "batch_id",
        "wallet_id",
        postgresql_where=text("batch_id IS NOT NULL"),
    ),
    schema="wallet",
)

holds = Table(
    "holds",
    metadata,
    # One row for each hold, as it is now. It changes under the lock of its wallet, with an entry in the ledger.
    Column("id", Uuid, primary_key=True),
    Column("wallet_id", Uuid, ForeignKey("wallet.wallets.id"), nullable=False),
    # Who gets what is captured. NULL is the currency's world account.
    Column("to_wallet_id", Uuid, ForeignKey("wallet.wallets.id")),
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("capture_max_minor", BigInteger, nullable=False),
    Column("captured_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("status", Text, nullable=False),
    # An open hold is expired from then on, whether or not its row says so yet.
    Column("expires_at", TIMESTAMP, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    Column("updated_at", TIMESTAMP, nullable=False),
    # A hold of zero would reserve nothing.
    CheckConstraint("amount_minor > 0", "amount"),
    # All of a hold can be captured.
    CheckConstraint("capture_max_minor >= amount_minor", "capture_max"),
    # A defect in the code can't capture more than the payer agreed to.
    CheckConstraint("captured_minor BETWEEN 0 AND capture_max_minor", "captured"),
    # An open hold reserves money.
    CheckConstraint("status <> 'open' OR captured_minor < amount_minor", "open"),
    # The states that the code knows.
    CheckConstraint("status IN ('open', 'captured', 'voided', 'expired')", "status"),
    # Pages of a wallet's holds in the order of their ids (keyset pagination).
    Index("holds_wallet_id_id_idx", "wallet_id", "id"),
    # The overdue holds of a wallet that is short of funds.
    Index("holds_wallet_id_expires_at_idx", "wallet_id", "expires_at", postgresql_where=text("status = 'open'")),
    # The overdue holds that the releaser releases.
    Index("holds_expires_at_idx", "expires_at", postgresql_where=text("status = 'open'")),
    schema="wallet",
    # Each hold is updated once or twice.
    postgresql_with={"fillfactor": "70"},
)

wallet_audit = Table(
    "wallet_audit",
    metadata,
    # What operators do with wallets: actor, time, operation, wallet, ledger transaction and reason.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    now_column(),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("wallet_id", Uuid, nullable=False),
    Column("transaction_id", Uuid, nullable=False),
    Column("reason", Text, nullable=False),
    # The acts on one wallet.
    Index("wallet_audit_wallet_id_idx", "wallet_id"),
    schema="wallet",
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    # A transaction first claims the key with an advisory lock. At its end it writes the row, with the reply.
    # The id of the caller to which the key belongs. It is empty where authentication is off, and for keys of that time.
    Column("caller_id", Text, primary_key=True, server_default=text("''")),
    Column("key", Text, primary_key=True),
    Column("request_hash", BYTEA, nullable=False),
    Column("reply_status", SmallInteger),
    Column("reply_headers", JSON),
    Column("reply_body", BYTEA),
    now_column(),
    # Retention finds old keys with it. BRIN takes a few bytes for each 128 pages, and is cheap to write.
    Index("idempotency_keys_created_at_idx", "created_at", postgresql_using="brin"),
    schema="wallet",
)
