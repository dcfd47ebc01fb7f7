"""The audit of what operators do with wallets."""

import sqlalchemy as sa
from alembic import op

revision = "wallet_0013"
down_revision = "wallet_0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "wallet_audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("wallet_id", sa.Uuid(), nullable=False),
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("wallet_audit_pkey")),
        schema="wallet",
    )
    op.create_index("wallet_audit_wallet_id_idx", "wallet_audit", ["wallet_id"], unique=False, schema="wallet")


def downgrade() -> None:
    op.drop_table("wallet_audit", schema="wallet")
