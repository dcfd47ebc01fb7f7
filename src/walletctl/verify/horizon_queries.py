"""The SQL of the stored horizon."""

from typing import Final

from sqlalchemy import text

STORED: Final = text("""
    SELECT up_to, full_at, taken_at, identity, counts, read_to
    FROM wallet.verified_horizons WHERE topic = :topic AND consumer_group = :consumer_group
""")

# An audit that ends later may have begun earlier.
STORE: Final = text("""
    INSERT INTO wallet.verified_horizons AS stored (
        topic, consumer_group, up_to, full_at, taken_at, identity, counts, read_to
    ) VALUES (
        :topic, :consumer_group, :up_to, :full_at, :taken_at,
        cast(:identity AS jsonb), cast(:counts AS jsonb), cast(:read_to AS jsonb)
    )
    ON CONFLICT (topic, consumer_group) DO UPDATE SET
        up_to = excluded.up_to, full_at = excluded.full_at, taken_at = excluded.taken_at,
        identity = excluded.identity, counts = excluded.counts, read_to = excluded.read_to
    WHERE stored.taken_at < excluded.taken_at
""")

MAY_STORE: Final = text("""
    SELECT coalesce(
        has_table_privilege(to_regclass('wallet.verified_horizons')::oid, 'INSERT')
        AND has_table_privilege(to_regclass('wallet.verified_horizons')::oid, 'UPDATE')
        AND NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off',
        false
    ) AS may_store
""")

# A restored cluster has another timeline or another system identifier. A table that was put in another's place, as
# `walletctl history rebuild` does, has another oid.
IDENTITY: Final = text("""
    SELECT concat_ws(
        '/', system.system_identifier, checkpoint.timeline_id,
        (SELECT oid FROM pg_database WHERE datname = current_database()), to_regclass(:table)::oid
    ) AS identity
    FROM pg_control_system() AS system, pg_control_checkpoint() AS checkpoint
""")

WALLET_COUNTS: Final = text("""
    SELECT
        (SELECT count(*) FROM wallet.wallets WHERE created_at <= :up_to) AS "wallet.wallets",
        (SELECT count(*) FROM wallet.wallet_transactions WHERE created_at <= :up_to) AS "wallet.wallet_transactions"
""")

HISTORY_COUNTS: Final = text("""
    SELECT count(*) AS "history.transaction_events" FROM history.transaction_events WHERE created_at <= :up_to
""")
