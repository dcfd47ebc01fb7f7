"""API keys, and the audit of what operators do with them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "wallet_0006"
down_revision = "wallet_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("caller_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", postgresql.BYTEA(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rotated_from", sa.Text(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("length(hash) = 32", name=op.f("api_keys_hash_check")),
        sa.CheckConstraint("cardinality(scopes) > 0", name=op.f("api_keys_scopes_check")),
        sa.CheckConstraint("length(user_id) BETWEEN 1 AND 64", name=op.f("api_keys_user_id_check")),
        sa.ForeignKeyConstraint(["rotated_from"], ["wallet.api_keys.id"], name=op.f("api_keys_rotated_from_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("api_keys_pkey")),
        schema="wallet",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index("api_keys_rotated_from_key", "api_keys", ["rotated_from"], unique=True, schema="wallet")
    op.create_index("api_keys_revision_idx", "api_keys", ["revision"], unique=False, schema="wallet")
    op.create_table(
        "api_key_audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("api_key_audit_pkey")),
        schema="wallet",
    )
    op.create_index("api_key_audit_key_id_idx", "api_key_audit", ["key_id"], unique=False, schema="wallet")


def downgrade() -> None:
    op.drop_table("api_key_audit", schema="wallet")
    op.drop_table("api_keys", schema="wallet")
