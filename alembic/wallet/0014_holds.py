"""Holds: what open holds reserve of a wallet, in the wallet and in the ledger, and the holds themselves."""

import sqlalchemy as sa
from alembic import op

from common.postgres.online_ddl import build_index, without_transaction

revision = "wallet_0014"
down_revision = "wallet_0013"
branch_labels = None
depends_on = None

_BALANCED = """
CREATE OR REPLACE FUNCTION wallet.refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql
SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wrong record;
BEGIN
    SELECT transaction_id, currency, sum(amount_minor) AS total{held_total} INTO wrong
    FROM inserted GROUP BY transaction_id, currency HAVING sum(amount_minor) <> 0{held_sum} LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'entries of transaction % in % sum to %{held_message}, not to zero',
            wrong.transaction_id, wrong.currency, wrong.total{held_value} USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$
"""
_WITHOUT_HELD = _BALANCED.format(held_total="", held_sum="", held_message="", held_value="")
_WITH_HELD = _BALANCED.format(
    held_total=", sum(held_minor) AS held_total",
    held_sum=" OR sum(held_minor) <> 0",
    held_message=", and what they hold to %",
    held_value=", wrong.held_total",
)


def upgrade() -> None:
    create_holds()
    held = sa.Column("held_minor", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    op.add_column("wallets", held, schema="wallet", if_not_exists=True)
    op.execute("ALTER TABLE wallet.wallets DROP CONSTRAINT IF EXISTS wallets_held_check")
    op.execute(
        "ALTER TABLE wallet.wallets ADD CONSTRAINT wallets_held_check"
        " CHECK (held_minor BETWEEN 0 AND balance_minor) NOT VALID"
    )
    with without_transaction():
        op.execute("ALTER TABLE wallet.wallets VALIDATE CONSTRAINT wallets_held_check")
    widen_ledger()
    with without_transaction():
        build_index(
            "wallet_transactions_hold_id_idx",
            "wallet_transactions",
            ["hold_id"],
            schema="wallet",
            postgresql_where=sa.text("hold_id IS NOT NULL"),
        )


def create_holds() -> None:
    op.create_table(
        "holds",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("wallet_id", sa.Uuid(), nullable=False),
        sa.Column("to_wallet_id", sa.Uuid(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("capture_max_minor", sa.BigInteger(), nullable=False),
        sa.Column("captured_minor", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("amount_minor > 0", name=op.f("holds_amount_check")),
        sa.CheckConstraint("capture_max_minor >= amount_minor", name=op.f("holds_capture_max_check")),
        sa.CheckConstraint("captured_minor BETWEEN 0 AND capture_max_minor", name=op.f("holds_captured_check")),
        sa.CheckConstraint("status <> 'open' OR captured_minor < amount_minor", name=op.f("holds_open_check")),
        sa.CheckConstraint("status IN ('open', 'captured', 'voided', 'expired')", name=op.f("holds_status_check")),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallet.wallets.id"], name=op.f("holds_wallet_id_fkey")),
        sa.ForeignKeyConstraint(["to_wallet_id"], ["wallet.wallets.id"], name=op.f("holds_to_wallet_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("holds_pkey")),
        schema="wallet",
        if_not_exists=True,
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("holds_wallet_id_id_idx", "holds", ["wallet_id", "id"], schema="wallet", if_not_exists=True)
    for columns in (["wallet_id", "expires_at"], ["expires_at"]):
        op.create_index(
            f"holds_{'_'.join(columns)}_idx",
            "holds",
            columns,
            schema="wallet",
            if_not_exists=True,
            postgresql_where=sa.text("status = 'open'"),
        )


def widen_ledger() -> None:
    held = sa.Column("held_minor", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    op.add_column("wallet_transactions", held, schema="wallet", if_not_exists=True)
    for column in (sa.Column("held_after_minor", sa.BigInteger()), sa.Column("hold_id", sa.Uuid())):
        op.add_column("wallet_transactions", column, schema="wallet", if_not_exists=True)
    op.execute(_WITH_HELD)


def downgrade() -> None:
    op.execute(_WITHOUT_HELD)
    # It fails while the ledger has entries of holds: the last release can't tell what they mean. The check goes with
    # its column.
    op.execute(
        "ALTER TABLE wallet.wallet_transactions ADD CONSTRAINT wallet_transactions_held_check CHECK (held_minor = 0)"
    )
    for column in ("hold_id", "held_after_minor", "held_minor"):
        op.drop_column("wallet_transactions", column, schema="wallet")
    op.drop_column("wallets", "held_minor", schema="wallet")
    op.drop_table("holds", schema="wallet")
