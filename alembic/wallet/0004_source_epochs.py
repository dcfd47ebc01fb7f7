"""Source epochs: a new one begins after the database was restored to an earlier time."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "wallet_0004"
down_revision = "wallet_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "source_epochs",
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("topic_id", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column(
            "topic_ends", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.CheckConstraint("epoch >= 1", name=op.f("source_epochs_epoch_check")),
        sa.PrimaryKeyConstraint("epoch", name=op.f("source_epochs_pkey")),
        schema="wallet",
    )
    op.execute("INSERT INTO wallet.source_epochs (epoch, actor) VALUES (1, current_user)")
    op.add_column(
        "outbox",
        sa.Column("source_epoch", sa.Integer(), server_default=sa.text("1"), nullable=False),
        schema="wallet",
    )


def downgrade() -> None:
    op.drop_column("outbox", "source_epoch", schema="wallet")
    op.drop_table("source_epochs", schema="wallet")
