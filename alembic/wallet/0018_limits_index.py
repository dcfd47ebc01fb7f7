"""The limits that a wallet had at a version are found by an index."""

import sqlalchemy as sa
from alembic import op

from common.postgres.online_ddl import build_index, without_transaction

revision = "wallet_0018"
down_revision = "wallet_0017"
branch_labels = None
depends_on = None

_NAME = "wallet_transactions_limits_idx"


def upgrade() -> None:
    with without_transaction():
        build_index(
            _NAME,
            "wallet_transactions",
            ["wallet_id", "wallet_version"],
            schema="wallet",
            postgresql_where=sa.text("type = 'LIMITS'"),
        )


def downgrade() -> None:
    op.drop_index(_NAME, table_name="wallet_transactions", schema="wallet")
