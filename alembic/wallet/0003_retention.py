"""Retention: how much of the outbox was pruned, and an index for old idempotency keys."""

import sqlalchemy as sa
from alembic import op

from common.postgres.online_ddl import build_index, without_transaction

revision = "wallet_0003"
down_revision = "wallet_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with without_transaction():
        build_index(
            "idempotency_keys_created_at_idx",
            "idempotency_keys",
            ["created_at"],
            schema="wallet",
            postgresql_using="brin",
        )
    op.create_table(
        "outbox_pruned",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, server_default=sa.text("1"), nullable=False),
        sa.Column("row_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("version_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("up_to_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("up_to_created_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("outbox_pruned_id_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_pruned_pkey")),
        schema="wallet",
        postgresql_with={"fillfactor": "20"},
    )
    op.execute("INSERT INTO wallet.outbox_pruned DEFAULT VALUES")


def downgrade() -> None:
    op.drop_index(
        "idempotency_keys_created_at_idx", table_name="idempotency_keys", schema="wallet", postgresql_using="brin"
    )
    op.drop_table("outbox_pruned", schema="wallet")
