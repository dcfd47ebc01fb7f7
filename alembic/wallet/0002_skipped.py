"""Outbox rows that an operator has skipped."""

import sqlalchemy as sa
from alembic import op

from common.postgres.online_ddl import build_index, without_transaction

revision = "wallet_0002"
down_revision = "wallet_0001"
branch_labels = None
depends_on = None

CHECK = "outbox_skipped_check"
SKIPPED = "skipped_at IS NULL OR parked_at IS NOT NULL"


def upgrade() -> None:
    column = sa.Column("skipped_at", sa.DateTime(timezone=True), nullable=True)
    op.add_column("outbox", column, schema="wallet", if_not_exists=True)
    op.drop_constraint(op.f(CHECK), "outbox", schema="wallet", if_exists=True)
    op.create_check_constraint(op.f(CHECK), "outbox", SKIPPED, schema="wallet", postgresql_not_valid=True)
    with without_transaction():
        op.execute("ALTER TABLE wallet.outbox VALIDATE CONSTRAINT outbox_skipped_check")
        where = sa.text("parked_at IS NOT NULL AND skipped_at IS NULL")
        build_index("outbox_parked_new", "outbox", ["aggregate_id", "id"], schema="wallet", postgresql_where=where)
    op.drop_index("outbox_parked_idx", table_name="outbox", schema="wallet")
    op.execute("ALTER INDEX wallet.outbox_parked_new RENAME TO outbox_parked_idx")


def downgrade() -> None:
    op.drop_index("outbox_parked_idx", table_name="outbox", schema="wallet")
    where = sa.text("parked_at IS NOT NULL")
    op.create_index("outbox_parked_idx", "outbox", ["aggregate_id", "id"], schema="wallet", postgresql_where=where)
    op.drop_constraint(op.f(CHECK), "outbox", schema="wallet")
    op.drop_column("outbox", "skipped_at", schema="wallet")
