"""Wallets, the ledger, the outbox with its lanes, and idempotency keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "wallet_0001"
down_revision = None
branch_labels = None
depends_on = None


BALANCED = """
CREATE FUNCTION wallet.refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    SELECT transaction_id, currency, sum(amount_minor) AS total INTO wrong
    FROM inserted GROUP BY transaction_id, currency HAVING sum(amount_minor) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'entries of transaction % in % sum to %, not to zero',
            wrong.transaction_id, wrong.currency, wrong.total USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER wallet_transactions_balanced AFTER INSERT ON wallet.wallet_transactions
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION wallet.refuse_unbalanced();
"""

IMMUTABLE = """
CREATE FUNCTION wallet.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % of %.% refused', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = 'write a movement that reverses it';
END $$;
CREATE TRIGGER wallet_transactions_immutable BEFORE UPDATE OR DELETE OR TRUNCATE
    ON wallet.wallet_transactions FOR EACH STATEMENT EXECUTE FUNCTION wallet.refuse_change();
"""


def statements(script: str) -> list[str]:
    """Split the script, since asyncpg prepares one statement at a time."""
    function, trigger = script.split("CREATE TRIGGER")
    return [function, "CREATE TRIGGER" + trigger]


def upgrade() -> None:
    create_idempotency_keys()
    create_outbox()
    create_outbox_audit_and_lanes()
    create_wallets()
    create_ledger()
    op.execute("INSERT INTO wallet.outbox_lanes (lane) SELECT generate_series(0, 63)")
    for statement in statements(BALANCED) + statements(IMMUTABLE):
        op.execute(statement)


def create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", postgresql.BYTEA(), nullable=False),
        sa.Column("reply_status", sa.SmallInteger(), nullable=True),
        sa.Column("reply_headers", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.Column("reply_body", postgresql.BYTEA(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("idempotency_keys_pkey")),
        schema="wallet",
    )


def create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("aggregate_id", sa.Uuid(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("headers", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("kafka_partition", sa.Integer(), nullable=True),
        sa.Column("kafka_offset", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("parked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(published_at IS NULL) = (kafka_partition IS NULL) AND (published_at IS NULL) = (kafka_offset IS NULL)",
            name=op.f("outbox_settled_check"),
        ),
        sa.CheckConstraint("lane BETWEEN 0 AND 63", name=op.f("outbox_lane_check")),
        sa.CheckConstraint("published_at IS NULL OR parked_at IS NULL", name=op.f("outbox_parked_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_pkey")),
        schema="wallet",
    )
    op.create_index(
        "outbox_parked_idx",
        "outbox",
        ["aggregate_id", "id"],
        unique=False,
        schema="wallet",
        postgresql_where=sa.text("parked_at IS NOT NULL"),
    )
    op.create_index(
        "outbox_pending_idx",
        "outbox",
        ["lane", "id"],
        unique=False,
        schema="wallet",
        postgresql_where=sa.text("published_at IS NULL AND parked_at IS NULL"),
    )


def create_outbox_audit_and_lanes() -> None:
    op.create_table(
        "outbox_audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("selection", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_audit_pkey")),
        schema="wallet",
    )
    op.create_table(
        "outbox_lanes",
        sa.Column("lane", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("low_water", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("lane BETWEEN 0 AND 63", name=op.f("outbox_lanes_lane_check")),
        sa.PrimaryKeyConstraint("lane", name=op.f("outbox_lanes_pkey")),
        schema="wallet",
        postgresql_with={"fillfactor": "20"},
    )


def create_wallets() -> None:
    op.create_table(
        "wallets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("balance_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("wallets_currency_check")),
        sa.CheckConstraint("status IN ('active', 'frozen', 'closed')", name=op.f("wallets_status_check")),
        sa.CheckConstraint("balance_minor >= 0", name=op.f("wallets_balance_check")),
        sa.CheckConstraint("length(user_id) BETWEEN 1 AND 64", name=op.f("wallets_user_id_check")),
        sa.CheckConstraint("version >= 1", name=op.f("wallets_version_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("wallets_pkey")),
        schema="wallet",
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "wallets_user_id_external_id_key",
        "wallets",
        ["user_id", "external_id"],
        unique=True,
        schema="wallet",
        postgresql_where=sa.text("external_id IS NOT NULL"),
    )
    op.create_index("wallets_user_id_id_idx", "wallets", ["user_id", "id"], unique=False, schema="wallet")


def create_ledger() -> None:
    op.create_table(
        "wallet_transactions",
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
        sa.Column("entry", sa.SmallInteger(), nullable=False),
        sa.Column("wallet_id", sa.Uuid(), nullable=True),
        sa.Column("wallet_version", sa.BigInteger(), nullable=True),
        sa.Column("counterparty_wallet_id", sa.Uuid(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("balance_after_minor", sa.BigInteger(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("type IN ('FUND', 'TRANSFER')", name=op.f("wallet_transactions_type_check")),
        sa.CheckConstraint(
            "(wallet_id IS NULL) = (wallet_version IS NULL) AND (wallet_id IS NULL) = (balance_after_minor IS NULL)",
            name=op.f("wallet_transactions_wallet_check"),
        ),
        sa.CheckConstraint("amount_minor <> 0", name=op.f("wallet_transactions_amount_check")),
        sa.CheckConstraint("balance_after_minor >= 0", name=op.f("wallet_transactions_balance_after_check")),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallet.wallets.id"], name=op.f("wallet_transactions_wallet_id_fkey")),
        sa.PrimaryKeyConstraint("transaction_id", "entry", name=op.f("wallet_transactions_pkey")),
        schema="wallet",
    )
    op.create_index(
        "wallet_transactions_wallet_id_wallet_version_key",
        "wallet_transactions",
        ["wallet_id", "wallet_version"],
        unique=True,
        schema="wallet",
        postgresql_where=sa.text("wallet_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_table("wallet_transactions", schema="wallet")
    op.drop_table("wallets", schema="wallet")
    op.drop_table("outbox_lanes", schema="wallet")
    op.drop_table("outbox_audit", schema="wallet")
    op.drop_table("outbox", schema="wallet")
    op.drop_table("idempotency_keys", schema="wallet")
    op.execute("DROP FUNCTION wallet.refuse_unbalanced, wallet.refuse_change")
