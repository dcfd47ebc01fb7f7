"""The history: events by wallet, progress, offsets and dead letters."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "history_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_dead_letters()
    create_processed_offsets()
    create_transaction_events()
    create_wallet_progress()


def create_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("topic_id", sa.Text(), nullable=False),
        sa.Column("key", postgresql.BYTEA(), nullable=True),
        sa.Column("value", postgresql.BYTEA(), nullable=True),
        sa.Column("headers", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("dead_letters_pkey")),
        schema="history",
    )
    op.create_index(
        "dead_letters_record_key",
        "dead_letters",
        ["topic_id", "partition", "offset"],
        unique=True,
        schema="history",
    )


def create_processed_offsets() -> None:
    op.create_table(
        "processed_offsets",
        sa.Column("consumer_group", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column("topic_id", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("next_offset >= 0", name=op.f("processed_offsets_next_offset_check")),
        sa.PrimaryKeyConstraint("consumer_group", "topic", "partition", name=op.f("processed_offsets_pkey")),
        schema="history",
        postgresql_with={"fillfactor": "20"},
    )


def create_transaction_events() -> None:
    op.create_table(
        "transaction_events",
        sa.Column("wallet_id", sa.Uuid(), nullable=False),
        sa.Column("wallet_version", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("transaction_id", sa.Uuid(), nullable=True),
        sa.Column("direction", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("balance_after_minor", sa.BigInteger(), nullable=False),
        sa.Column("counterparty_wallet_id", sa.Uuid(), nullable=True),
        sa.Column("event_data", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("direction IN ('in', 'out')", name=op.f("transaction_events_direction_check")),
        sa.CheckConstraint("amount_minor > 0", name=op.f("transaction_events_amount_check")),
        sa.CheckConstraint("wallet_version >= 1", name=op.f("transaction_events_wallet_version_check")),
        sa.PrimaryKeyConstraint("wallet_id", "wallet_version", name=op.f("transaction_events_pkey")),
        schema="history",
    )
    op.create_index(
        "transaction_events_user_id_event_id_key",
        "transaction_events",
        ["user_id", "event_id", "wallet_id"],
        unique=True,
        schema="history",
    )


def create_wallet_progress() -> None:
    op.create_table(
        "wallet_progress",
        sa.Column("wallet_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.Column("max_version", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("event_count BETWEEN 1 AND max_version", name=op.f("wallet_progress_event_count_check")),
        sa.PrimaryKeyConstraint("wallet_id", name=op.f("wallet_progress_pkey")),
        schema="history",
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "wallet_progress_gaps_idx",
        "wallet_progress",
        ["updated_at"],
        unique=False,
        schema="history",
        postgresql_where=sa.text("event_count <> max_version"),
    )
    op.create_index("wallet_progress_user_id_idx", "wallet_progress", ["user_id"], unique=False, schema="history")


def downgrade() -> None:
    op.drop_table("wallet_progress", schema="history")
    op.drop_table("transaction_events", schema="history")
    op.drop_table("processed_offsets", schema="history")
    op.drop_table("dead_letters", schema="history")
