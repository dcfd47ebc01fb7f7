"""Drop the index on gaps: it is on a column that each update changes, and so prevents HOT updates."""

import sqlalchemy as sa
from alembic import op

revision = "history_0003"
down_revision = "history_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("wallet_progress_gaps_idx", table_name="wallet_progress", schema="history")


def downgrade() -> None:
    op.create_index(
        "wallet_progress_gaps_idx",
        "wallet_progress",
        ["updated_at"],
        schema="history",
        postgresql_where=sa.text("event_count <> max_version"),
    )
