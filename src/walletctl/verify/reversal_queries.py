"""The audit's SQL about reversals, all of which an index finds: what they moved back, by the originals' entries."""

from typing import Final

from sqlalchemy import text

from wallet_api.operations.original import REVERSIBLE

_TYPES: Final = ", ".join(f"'{type_}'" for type_ in REVERSIBLE)

COUNT: Final = text("""
    SELECT count(DISTINCT transaction_id) FROM wallet.wallet_transactions WHERE reverses_transaction_id IS NOT NULL
""")

# A reversal that has its link in some of its entries only.
UNLINKED: Final = text("""
    SELECT transaction_id FROM wallet.wallet_transactions WHERE reverses_transaction_id IS NOT NULL
    GROUP BY transaction_id HAVING sum(amount_minor) <> 0 OR count(DISTINCT reverses_transaction_id) > 1
""")

# One row for each wallet of which reversals of a transaction moved more than the transaction did, or not back.
EXCESSES: Final = text(f"""
    SELECT reversal.original_id, reversal.wallet_id, reversal.currency, back_minor::text AS back_minor,
        reversal_types, original.type, original.amount_minor
    FROM (
        SELECT reverses_transaction_id AS original_id, wallet_id, currency, sum(amount_minor) AS back_minor,
            string_agg(DISTINCT type, ' ') AS reversal_types,
            bool_and(amount_minor > 0) AS only_in, bool_and(amount_minor < 0) AS only_out
        FROM wallet.wallet_transactions WHERE reverses_transaction_id IS NOT NULL
        GROUP BY reverses_transaction_id, wallet_id, currency
    ) AS reversal
    LEFT JOIN wallet.wallet_transactions AS original
        ON original.transaction_id = original_id AND original.currency = reversal.currency
            AND original.wallet_id IS NOT DISTINCT FROM reversal.wallet_id
    WHERE (
        original.type IN ({_TYPES}) AND reversal_types = 'REVERSAL' AND abs(back_minor) <= abs(original.amount_minor)
            AND (CASE WHEN original.amount_minor < 0 THEN only_in ELSE only_out END)
    ) IS NOT TRUE
""")  # noqa: S608 - constants of this package
