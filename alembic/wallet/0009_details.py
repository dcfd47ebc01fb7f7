"""What the event of a ledger transaction says besides the money is in the ledger too."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "wallet_0009"
down_revision = "wallet_0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("wallet_transactions", sa.Column("details", JSONB), schema="wallet", if_not_exists=True)


def downgrade() -> None:
    op.drop_column("wallet_transactions", "details", schema="wallet")
