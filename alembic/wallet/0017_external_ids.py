"""External ids of transactions: the client's own id, once for each wallet and for ever."""

import sqlalchemy as sa
from alembic import op

from common.postgres.online_ddl import build_index, without_transaction

revision = "wallet_0017"
down_revision = "wallet_0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("wallet_transactions", sa.Column("external_id", sa.Text()), schema="wallet", if_not_exists=True)
    with without_transaction():
        build_index(
            "wallet_transactions_external_id_wallet_id_key",
            "wallet_transactions",
            ["external_id", "wallet_id"],
            schema="wallet",
            unique=True,
            postgresql_where=sa.text("external_id IS NOT NULL"),
        )


def downgrade() -> None:
    op.drop_column("wallet_transactions", "external_id", schema="wallet")
