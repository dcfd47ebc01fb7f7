"""The horizon of the last clean `walletctl verify`."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "wallet_0011"
down_revision = "wallet_0010"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "verified_horizons",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("consumer_group", sa.Text(), nullable=False),
        sa.Column("up_to", _TIME, nullable=False),
        sa.Column("full_at", _TIME, nullable=False),
        sa.Column("taken_at", _TIME, nullable=False),
        sa.Column("identity", JSONB(), nullable=False),
        sa.Column("counts", JSONB(), nullable=False),
        sa.Column("read_to", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "consumer_group", name=op.f("verified_horizons_pkey")),
        schema="wallet",
    )


def downgrade() -> None:
    op.drop_table("verified_horizons", schema="wallet")
