"""An idempotency key belongs to its caller."""

import sqlalchemy as sa
from alembic import op

from common.postgres.online_ddl import build_index, without_transaction

revision = "wallet_0007"
down_revision = "wallet_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A constant default rewrites no row. The keys so far are those of callers without a name.
    column = sa.Column("caller_id", sa.Text(), server_default=sa.text("''"), nullable=False)
    op.add_column("idempotency_keys", column, schema="wallet", if_not_exists=True)
    with without_transaction():
        build_index("idempotency_keys_new", "idempotency_keys", ["caller_id", "key"], schema="wallet", unique=True)
    op.drop_constraint("idempotency_keys_pkey", "idempotency_keys", schema="wallet")
    op.execute(
        "ALTER TABLE wallet.idempotency_keys "
        "ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY USING INDEX idempotency_keys_new"
    )


def downgrade() -> None:
    # Without its caller, a key would give the reply to any caller.
    op.execute("DELETE FROM wallet.idempotency_keys WHERE caller_id <> ''")
    op.drop_constraint("idempotency_keys_pkey", "idempotency_keys", schema="wallet")
    op.create_primary_key("idempotency_keys_pkey", "idempotency_keys", ["key"], schema="wallet")
    op.drop_column("idempotency_keys", "caller_id", schema="wallet")
