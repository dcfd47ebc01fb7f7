"""The source epoch with which the history agrees."""

import sqlalchemy as sa
from alembic import op

revision = "history_0002"
down_revision = "history_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "processed_offsets",
        sa.Column("source_epoch", sa.Integer(), server_default=sa.text("1"), nullable=False),
        schema="history",
    )
    op.create_check_constraint(
        op.f("processed_offsets_source_epoch_check"), "processed_offsets", "source_epoch >= 0", schema="history"
    )


def downgrade() -> None:
    op.drop_constraint(
        op.f("processed_offsets_source_epoch_check"), "processed_offsets", schema="history", type_="check"
    )
    op.drop_column("processed_offsets", "source_epoch", schema="history")
