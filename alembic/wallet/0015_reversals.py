"""The transaction that a ledger entry reverses."""

import sqlalchemy as sa
from alembic import op

from common.postgres.online_ddl import build_index, without_transaction

revision = "wallet_0015"
down_revision = "wallet_0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("reverses_transaction_id", sa.Uuid(), nullable=True)
    op.add_column("wallet_transactions", column, schema="wallet", if_not_exists=True)
    with without_transaction():
        build_index(
            "wallet_transactions_reverses_transaction_id_idx",
            "wallet_transactions",
            ["reverses_transaction_id"],
            schema="wallet",
            postgresql_where=sa.text("reverses_transaction_id IS NOT NULL"),
        )


def downgrade() -> None:
    # It fails while the ledger has reversals: without their links, the same money could be reversed again. The check
    # goes with its column.
    op.execute(
        "ALTER TABLE wallet.wallet_transactions ADD CONSTRAINT wallet_transactions_reverses_check"
        " CHECK (reverses_transaction_id IS NULL)"
    )
    op.drop_column("wallet_transactions", "reverses_transaction_id", schema="wallet")
