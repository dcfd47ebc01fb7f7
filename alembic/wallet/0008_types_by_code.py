"""The types of ledger transactions are the code's: a new operation needs no migration."""

from alembic import op

revision = "wallet_0008"
down_revision = "wallet_0007"
branch_labels = None
depends_on = None

_NAME = "wallet_transactions_type_check"


def upgrade() -> None:
    op.execute(f"ALTER TABLE wallet.wallet_transactions DROP CONSTRAINT IF EXISTS {_NAME}")


def downgrade() -> None:
    # It fails while the ledger has other types: the last release can't tell what they mean.
    op.execute(f"ALTER TABLE wallet.wallet_transactions ADD CONSTRAINT {_NAME} CHECK (type IN ('FUND', 'TRANSFER'))")
