"""Functions with a search path of their own: the caller's can't lead them to other objects."""

from alembic import op

revision = "wallet_0005"
down_revision = "wallet_0004"
branch_labels = None
depends_on = None

FUNCTIONS = ("wallet.refuse_change()", "wallet.refuse_unbalanced()")


def upgrade() -> None:
    for function in FUNCTIONS:
        # pg_temp is searched first, unless the path names it (PostgreSQL manual, CREATE FUNCTION).
        op.execute(f"ALTER FUNCTION {function} SECURITY INVOKER SET search_path = pg_catalog, pg_temp")


def downgrade() -> None:
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function} RESET search_path")
