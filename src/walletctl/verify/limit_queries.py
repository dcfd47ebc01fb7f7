"""The audit's SQL about limits: as the wallets have them, and as the ledger tells."""

from typing import Final

from sqlalchemy import text

from common.events.models import WalletLimitsSet
from wallet_api.velocity_limits import COUNTED_TYPES, HOLD
from walletctl.verify.facts import UNITS, WITHIN

_SET: Final = WalletLimitsSet.transaction_type


def _listed(types: tuple[str, ...]) -> str:
    return ", ".join(f"'{type_}'" for type_ in types)


# The limits of each wallet as JSON, beside those that were set last.
LIMITS: Final = text(f"""
    SELECT * FROM (
        SELECT wallets.id AS wallet_id, coalesce(
                last_limits,
                jsonb_build_object('overdraft_limit', (0 * major)::text, 'balance_max', NULL, 'velocity', '[]'::jsonb)
            ) AS expected,
            jsonb_build_object(
                'overdraft_limit', (overdraft_limit_minor * major)::text,
                'balance_max', (balance_max_minor * major)::text,
                'velocity', coalesce(velocity, '[]')
            ) AS found,
            has_velocity_limits = (velocity IS NOT NULL) AS is_flagged
        FROM wallet.wallets LEFT JOIN {UNITS} ON unit.currency = wallets.currency
        LEFT JOIN (
            SELECT DISTINCT ON (wallet_id) wallet_id, jsonb_build_object(
                'overdraft_limit', details -> 'overdraft_limit', 'balance_max', details -> 'balance_max',
                'velocity', details -> 'velocity'
            ) AS last_limits
            FROM wallet.wallet_transactions WHERE type = '{_SET}' ORDER BY wallet_id, wallet_version DESC
        ) AS changes ON changes.wallet_id = wallets.id
        LEFT JOIN (
            SELECT wallet_id, jsonb_agg(jsonb_build_object(
                'id', limits.id, 'direction', direction, 'types', types, 'window', "window",
                'amount', (amount_minor * major)::text, 'count', count
            ) ORDER BY position) AS velocity
            FROM wallet.velocity_limits AS limits JOIN wallet.wallets ON wallets.id = limits.wallet_id
            LEFT JOIN {UNITS} ON unit.currency = wallets.currency GROUP BY wallet_id
        ) AS present ON present.wallet_id = wallets.id
        WHERE last_limits IS NOT NULL OR overdraft_limit_minor > 0 OR balance_max_minor IS NOT NULL
            OR has_velocity_limits OR velocity IS NOT NULL
    ) AS compared
    WHERE expected <> found OR NOT is_flagged
""")  # noqa: S608 - constants of this package

# What an entry takes from what is available, and whether it counts: what `wallet_api.velocity_limits` does, told again.
# An entry that gives back counts if its hold was made in the window, and after the limit was set.
_TAKEN: Final = "entry.held_minor - entry.amount_minor"
_IS_OF_HOLD: Final = "entry.hold_id IS NOT NULL AND entry.entry = 1"
_OUT: Final = f"""
    direction = 'out' AND entry.type NOT IN ({_listed((HOLD,))}) AND entry.hold_id IS NULL
    AND entry.type IN ({_listed(COUNTED_TYPES["out"])}) AND entry.amount_minor < 0
    AND (types IS NULL OR entry.type = ANY(types))
"""
_OUT_BY_HOLD: Final = f"""
    direction = 'out' AND {_IS_OF_HOLD} AND (types IS NULL OR '{HOLD}' = ANY(types))
    AND ({_TAKEN} >= 0 OR made.created_at >= window_start AND made.created_at > since)
"""
_IN: Final = f"""
    direction = 'in' AND entry.amount_minor > 0 AND entry.type IN ({_listed(COUNTED_TYPES["in"])})
    AND (types IS NULL OR entry.type = ANY(types))
"""
_COUNT: Final = f"""CASE
    WHEN NOT ({_IS_OF_HOLD}) OR direction = 'in' OR entry.type = '{HOLD}' THEN 1
    WHEN entry.amount_minor = 0 AND (entry.details -> 'hold' ->> 'captured')::numeric = 0 THEN -1
    ELSE 0
END"""

USED: Final = text(f"""
    SELECT * FROM (
        SELECT limits.wallet_id, limits.id, used_minor, used_count,
            coalesce(sum(CASE direction WHEN 'in' THEN entry.amount_minor ELSE {_TAKEN} END), 0) AS expected_minor,
            coalesce(sum(CASE WHEN entry.transaction_id IS NOT NULL THEN {_COUNT} END), 0) AS expected_count
        FROM wallet.velocity_limits AS limits
        LEFT JOIN (
            wallet.wallet_transactions AS entry
            LEFT JOIN wallet.holds AS made ON made.id = entry.hold_id
        ) ON entry.wallet_id = limits.wallet_id AND wallet_version > since_version
            AND entry.created_at >= window_start
            AND entry.created_at < window_start + ('1 ' || "window")::interval
            AND (({_OUT}) OR ({_OUT_BY_HOLD}) OR ({_IN}))
        WHERE "window" <> 'transaction'
        GROUP BY limits.wallet_id, limits.id, used_minor, used_count
    ) AS compared
    WHERE (used_minor, used_count) <> (expected_minor, expected_count)
""")  # noqa: S608 - constants of this package

# Entries that took more than the wallet's limit of that version allowed: only what takes nothing may leave less.
OVERDRAWN: Final = text(f"""
    WITH set_limit AS (
        SELECT wallet_id, wallet_version AS first_version,
            lead(wallet_version) OVER (PARTITION BY wallet_id ORDER BY wallet_version) AS next_version,
            (details ->> 'overdraft_limit')::numeric AS overdraft_limit
        FROM wallet.wallet_transactions WHERE type = '{_SET}'
    )
    SELECT entry.wallet_id, wallet_version, transaction_id, entry.currency,
        balance_after_minor - coalesce(held_after_minor, 0) AS own_minor,
        coalesce(overdraft_limit, 0) AS overdraft_limit
    FROM wallet.wallet_transactions AS entry LEFT JOIN {UNITS} ON unit.currency = entry.currency
    LEFT JOIN set_limit ON set_limit.wallet_id = entry.wallet_id AND wallet_version > first_version
        AND wallet_version < coalesce(next_version, 9223372036854775807)
    WHERE {WITHIN} AND balance_after_minor < coalesce(held_after_minor, 0) AND held_minor > amount_minor
        AND (balance_after_minor - coalesce(held_after_minor, 0)) * major < -coalesce(overdraft_limit, 0)
""")  # noqa: S608 - constants of this package
