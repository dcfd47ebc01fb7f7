"""Outbox rows that an operator has skipped."""

import sqlalchemy as sa
from alembic import op

revision = "wallet_0002"
down_revision = "wallet_0001"
branch_labels = None
depends_on = None

SKIPPED = "skipped_at IS NULL OR parked_at IS NOT NULL"


def parked_index(where: str) -> None:
    op.drop_index("outbox_parked_idx", table_name="outbox", schema="wallet")
    op.create_index(
        "outbox_parked_idx",
        "outbox",
        ["aggregate_id", "id"],
        unique=False,
        schema="wallet",
        postgresql_where=sa.text(where),
    )


def upgrade() -> None:
    op.add_column("outbox", sa.Column("skipped_at", sa.DateTime(timezone=True), nullable=True), schema="wallet")
    op.create_check_constraint(op.f("outbox_skipped_check"), "outbox", SKIPPED, schema="wallet")
    parked_index("parked_at IS NOT NULL AND skipped_at IS NULL")


def downgrade() -> None:
    parked_index("parked_at IS NOT NULL")
    op.drop_constraint(op.f("outbox_skipped_check"), "outbox", schema="wallet", type_="check")
    op.drop_column("outbox", "skipped_at", schema="wallet")
