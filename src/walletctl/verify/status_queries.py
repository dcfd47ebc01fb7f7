"""The audit's SQL about the statuses of wallets: by the wallets, by the ledger and by the events."""

from typing import Final

from sqlalchemy import text

from common.events import TRANSACTION_EVENTS, MovementEvent, StatusEvent, event_type_of

_MODELS: Final = {
    transaction_type: model for transaction_type, model in TRANSACTION_EVENTS.items() if issubclass(model, StatusEvent)
}
_TYPES: Final = ", ".join(f"'{transaction_type}'" for transaction_type in _MODELS)
_EVENT_TYPES: Final = ", ".join(f"'{event_type_of(model)}'" for model in _MODELS.values())
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

# What an event says besides the fields of a movement. A payload that is no JSON object says nothing.
_DETAILS: Final = f"event - cast('{{{','.join(MovementEvent.model_fields)}}}' AS text[])"

DETAILS: Final = text(f"""
    SELECT outbox_id, wallet_id, wallet_version, details::text AS details, ({_DETAILS})::text AS told
    FROM (
        SELECT id AS outbox_id, aggregate_id,
            CASE WHEN pg_input_is_valid(payload::text, 'jsonb') AND json_typeof(payload) = 'object'
                THEN payload::text::jsonb END AS event
        FROM wallet.outbox WHERE event_type IN ({_EVENT_TYPES})
        OFFSET 0
    ) AS events
    JOIN wallet.wallet_transactions
        ON wallet_id = aggregate_id AND transaction_id::text = event ->> 'transaction_id' AND type IN ({_TYPES})
    WHERE details IS DISTINCT FROM {_DETAILS}
""")  # noqa: S608 - constants of this package
