"""Limits: how far a wallet may be overdrawn, how much it may have, and how much may move in a time."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from common.postgres.online_ddl import without_transaction

revision = "wallet_0016"
down_revision = "wallet_0015"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
# Compared with the row before, because a limit may be lowered below its use. The comparisons can't overflow.
_WITHIN_LIMITS = (
    """
CREATE OR REPLACE FUNCTION wallet.refuse_beyond_limits() RETURNS trigger LANGUAGE plpgsql
SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'wallet % would have % with % held, beyond its limits', NEW.id, NEW.balance_minor, NEW.held_minor
        USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME, TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
END $$
""",
    """
CREATE OR REPLACE TRIGGER wallets_within_limits AFTER UPDATE ON wallet.wallets FOR EACH ROW
    WHEN (
        NEW.balance_minor - NEW.held_minor < -NEW.overdraft_limit_minor
            AND NEW.balance_minor - NEW.held_minor < OLD.balance_minor - OLD.held_minor
        OR NEW.balance_minor > NEW.balance_max_minor AND NEW.balance_minor > OLD.balance_minor
    )
    EXECUTE FUNCTION wallet.refuse_beyond_limits()
""",
)
_CHECKS = {
    "wallets_held_check": "held_minor >= 0",
    "wallets_overdraft_limit_check": "overdraft_limit_minor >= 0",
    "wallets_balance_max_check": "balance_max_minor >= 0",
}


def upgrade() -> None:
    create_velocity_limits()
    for column in (
        sa.Column("overdraft_limit_minor", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("balance_max_minor", sa.BigInteger()),
        sa.Column("has_velocity_limits", sa.Boolean(), nullable=False, server_default=sa.text("false")),
    ):
        op.add_column("wallets", column, schema="wallet", if_not_exists=True)
    # The trigger takes the place of the two checks: no moment is without either.
    for statement in _WITHIN_LIMITS:
        op.execute(statement)
    for name in ("wallets_balance_check", *_CHECKS):
        op.execute(f"ALTER TABLE wallet.wallets DROP CONSTRAINT IF EXISTS {name}")
    for name, rule in _CHECKS.items():
        op.execute(f"ALTER TABLE wallet.wallets ADD CONSTRAINT {name} CHECK ({rule}) NOT VALID")
    with without_transaction():
        for name in _CHECKS:
            op.execute(f"ALTER TABLE wallet.wallets VALIDATE CONSTRAINT {name}")
    op.execute(
        "ALTER TABLE wallet.wallet_transactions DROP CONSTRAINT IF EXISTS wallet_transactions_balance_after_check"
    )


def create_velocity_limits() -> None:
    op.create_table(
        "velocity_limits",
        sa.Column("wallet_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("types", ARRAY(sa.Text()), nullable=True),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("count", sa.Integer(), nullable=True),
        sa.Column("since_version", sa.BigInteger(), nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("window_start", _TIME, nullable=False),
        sa.Column("used_minor", sa.Numeric(), nullable=False),
        sa.Column("used_count", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("direction IN ('in', 'out')", name=op.f("velocity_limits_direction_check")),
        sa.CheckConstraint(
            "\"window\" IN ('transaction', 'day', 'week', 'month')", name=op.f("velocity_limits_window_check")
        ),
        sa.CheckConstraint(
            "coalesce(amount_minor, 0) > 0 OR coalesce(count, 0) > 0", name=op.f("velocity_limits_limit_check")
        ),
        sa.CheckConstraint("used_minor >= 0 AND used_count >= 0", name=op.f("velocity_limits_used_check")),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallet.wallets.id"], name=op.f("velocity_limits_wallet_id_fkey")),
        sa.PrimaryKeyConstraint("wallet_id", "id", name=op.f("velocity_limits_pkey")),
        schema="wallet",
        if_not_exists=True,
        postgresql_with={"fillfactor": "70"},
    )


def downgrade() -> None:
    # These fail while a wallet is overdrawn, or was: the last release can't tell what that means.
    op.execute(
        "ALTER TABLE wallet.wallet_transactions"
        " ADD CONSTRAINT wallet_transactions_balance_after_check CHECK (balance_after_minor >= 0)"
    )
    op.execute("ALTER TABLE wallet.wallets DROP CONSTRAINT wallets_held_check")
    op.execute("ALTER TABLE wallet.wallets ADD CONSTRAINT wallets_balance_check CHECK (balance_minor >= 0)")
    op.execute(
        "ALTER TABLE wallet.wallets ADD CONSTRAINT wallets_held_check CHECK (held_minor BETWEEN 0 AND balance_minor)"
    )
    op.execute("DROP TRIGGER wallets_within_limits ON wallet.wallets")
    op.execute("DROP FUNCTION wallet.refuse_beyond_limits()")
    # The checks go with their columns.
    for column in ("has_velocity_limits", "balance_max_minor", "overdraft_limit_minor"):
        op.drop_column("wallets", column, schema="wallet")
    op.drop_table("velocity_limits", schema="wallet")
