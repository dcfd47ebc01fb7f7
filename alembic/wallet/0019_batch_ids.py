"""The batch request that a transaction is a part of, and an index that finds its transactions."""

import sqlalchemy as sa
from alembic import op

from common.postgres.online_ddl import build_index, without_transaction

revision = "wallet_0019"
down_revision = "wallet_0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("wallet_transactions", sa.Column("batch_id", sa.Uuid()), schema="wallet", if_not_exists=True)
    with without_transaction():
        build_index(
            "wallet_transactions_batch_id_wallet_id_idx",
            "wallet_transactions",
            ["batch_id", "wallet_id"],
            schema="wallet",
            postgresql_where=sa.text("batch_id IS NOT NULL"),
        )


def downgrade() -> None:
    op.drop_column("wallet_transactions", "batch_id", schema="wallet")
