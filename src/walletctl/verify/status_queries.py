"""The audit's SQL about the statuses of wallets: by the wallets and by the ledger."""

from typing import Final

from sqlalchemy import text

from common.events.kinds import StatusEvent
from common.events.models import TRANSACTION_EVENTS

_MODELS: Final = {
    transaction_type: model for transaction_type, model in TRANSACTION_EVENTS.items() if issubclass(model, StatusEvent)
}
_TYPES: Final = ", ".join(f"'{transaction_type}'" for transaction_type in _MODELS)
_STATUSES: Final = " ".join(
    f"WHEN '{transaction_type}' THEN '{model.wallet_status}'" for transaction_type, model in _MODELS.items()
)

STATUSES: Final = text(f"""
    SELECT wallets.id AS wallet_id, concat_ws(' ', status, blocks) AS status,
        concat_ws(' ', coalesce(last_status, 'active'), last_blocks) AS last_status
    FROM wallet.wallets
    LEFT JOIN (
        SELECT DISTINCT ON (wallet_id) wallet_id, CASE type {_STATUSES} END AS last_status,
            details ->> 'blocks' AS last_blocks
        FROM wallet.wallet_transactions WHERE wallet_id IS NOT NULL AND type IN ({_TYPES})
        ORDER BY wallet_id, wallet_version DESC
    ) AS changes ON changes.wallet_id = wallets.id
    WHERE (status, blocks) IS DISTINCT FROM (coalesce(last_status, 'active'), last_blocks)
""")  # noqa: S608 - constants of this package
