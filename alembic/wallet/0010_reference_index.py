"""Transactions are found by their reference."""

import sqlalchemy as sa
from alembic import op

from common.postgres.online_ddl import build_index, without_transaction

revision = "wallet_0010"
down_revision = "wallet_0009"
branch_labels = None
depends_on = None

_NAME = "wallet_transactions_reference_idx"


def upgrade() -> None:
    with without_transaction():
        build_index(
            _NAME,
            "wallet_transactions",
            ["reference", "wallet_id", "transaction_id"],
            schema="wallet",
            postgresql_where=sa.text("reference IS NOT NULL"),
        )


def downgrade() -> None:
    op.drop_index(_NAME, table_name="wallet_transactions", schema="wallet")
