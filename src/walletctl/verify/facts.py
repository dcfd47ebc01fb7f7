"""SQL for each version of each wallet: what the ledger knows of it (a fact), and what the outbox says (a claim)."""

from typing import Final

from common.events.kinds import MovementEvent, details_of
from common.events.models import TRANSACTION_EVENTS, event_type_of
from walletctl.verify.event_types import event_type
from walletctl.verify.lines import digest, line, time

WITHIN: Final = "created_at > :since"
_TIME_SLICE: Final = "width_bucket(created_at, cast(:bounds AS timestamptz[]))"


def slice_of(wallet_id: str, version: str) -> str:
    """Return SQL for the slice of a version: its slice of time, or `scope.KEPT_SLICE`."""
    key = f"concat_ws('/', {wallet_id}, {version})"
    return f"CASE {_TIME_SLICE} WHEN 0 THEN (CASE WHEN {key} = ANY(:kept) THEN -1 ELSE 0 END) ELSE {_TIME_SLICE} END"


def in_slices(slice_: str) -> str:
    """Return SQL for whether a row is in one of the slices."""
    return f"{WITHIN} AND {slice_} = ANY(:slices)"


FACT_SLICE: Final = slice_of("wallet_id", "version")
ROW_SLICE: Final = slice_of("wallet_id", "wallet_version")
CLAIM_SLICE: Final = f"coalesce(nullif({_TIME_SLICE}, 0), -1)"

# `major` is one minor unit in major units (0.01): its product with an amount is the amount as events have it.
UNITS: Final = """
    unnest(cast(:currencies AS text[]), cast(cast(:units AS text[]) AS numeric[])) AS unit (currency, major)
"""

# The facts by the ledger: one row for each version of each wallet.
FACTS: Final = f"""
    SELECT id AS wallet_id, cast(1 AS bigint) AS version, user_id, 'WALLET_CREATED' AS event_type,
        NULL AS direction, cast(NULL AS uuid) AS transaction_id, cast(NULL AS bigint) AS amount_minor,
        cast(0 AS bigint) AS balance_after_minor, currency, cast(NULL AS uuid) AS counterparty_wallet_id, created_at,
        cast(NULL AS bigint) AS held_after_minor, cast(NULL AS uuid) AS reverses_transaction_id,
        cast(NULL AS jsonb) AS details, external_id
    FROM wallet.wallets
    UNION ALL
    SELECT entries.wallet_id, wallet_version, user_id,
        {event_type("type")},
        CASE WHEN amount_minor > 0 THEN 'in' WHEN amount_minor < 0 THEN 'out' END, transaction_id,
        nullif(abs(coalesce(nullif(amount_minor, 0), entries.held_minor)), 0),
        balance_after_minor, entries.currency, counterparty_wallet_id, entries.created_at,
        held_after_minor, reverses_transaction_id, details, entries.external_id
    FROM wallet.wallet_transactions AS entries
    LEFT JOIN wallet.wallets ON wallets.id = entries.wallet_id
    WHERE entries.wallet_id IS NOT NULL
"""  # noqa: S608 - constants of this package

OUTBOX_FIELDS: Final = (
    *("event_type", "direction", "transaction_id", "amount", "balance_after", "currency"),
    *("counterparty_wallet_id", "user_id", "created_at", "held_after", "reverses_transaction_id", "details"),
    "external_id",
    "envelope",
)
FACT_FIELDS: Final = (
    *("event_type", "direction", "transaction_id", "amount_minor * major", "balance_after_minor * major"),
    *("facts.currency", "counterparty_wallet_id", "user_id"),
)
# What the history does not have.
FURTHER_FACT_FIELDS: Final = ("held_after_minor * major", "reverses_transaction_id", "details", "external_id")
FACT_LINE: Final = line(*FACT_FIELDS, time("created_at"), *FURTHER_FACT_FIELDS, "'agrees'")

# Of `event`, the payload, and `change`, one of its wallets: `value` at `position`.
CLAIM_FIELDS: Final = (
    *("event_type", "value ->> 'direction'", "event ->> 'transaction_id'"),
    # The event's amount is that of the acting wallet, which is the first. Other wallets may have amounts of their own.
    "CASE change.position WHEN 1 THEN event ->> 'amount' ELSE coalesce(value ->> 'amount', event ->> 'amount') END",
    *("value ->> 'balance_after'", "event ->> 'currency'"),
    # The acting wallet is the other side of each other wallet; it has one itself if there is one other wallet.
    """event -> 'wallets' -> CASE change.position
        WHEN 1 THEN CASE jsonb_array_length(event -> 'wallets') WHEN 2 THEN 1 END ELSE 0
    END ->> 'wallet_id'""",
    "value ->> 'user_id'",
)
# What an event says besides the fields of a movement. Most types of events say nothing.
_DETAILED: Final = ", ".join(f"'{event_type_of(model)}'" for model in TRANSACTION_EVENTS.values() if details_of(model))
FURTHER_CLAIM_FIELDS: Final = (
    "value ->> 'held_after'",
    "event ->> 'reverses_transaction_id'",
    f"""CASE WHEN change.position = 1 AND event_type IN ({_DETAILED})
        THEN event - cast('{{{",".join(MovementEvent.model_fields)}}}' AS text[])
    END""",
    # The acting wallet's.
    "CASE change.position WHEN 1 THEN event ->> 'external_id' END",
)
ENVELOPE: Final = """CASE
    WHEN event ->> 'event_id' IS DISTINCT FROM event_id::text THEN 'another event_id in the payload'
    WHEN event ->> 'event_type' IS DISTINCT FROM event_type THEN 'another event_type in the payload'
    WHEN event -> 'wallets' -> 0 ->> 'wallet_id' IS DISTINCT FROM aggregate_id::text
        THEN 'another first wallet in the payload'
    ELSE 'agrees'
END"""
_CLAIM_LINE: Final = line(*CLAIM_FIELDS, time("created_at"), *FURTHER_CLAIM_FIELDS, ENVELOPE)

# The claims by the outbox: one row for each wallet of each event. An event whose payload cannot be read has one row
# without a wallet. `copy` numbers the rows that claim the same version of the same wallet.
# OFFSET 0 keeps PostgreSQL from parsing the payload again for every field, and from sorting whole payloads.
_CLAIMS: Final = f"""
    SELECT *, row_number() OVER (PARTITION BY wallet_id, version ORDER BY outbox_id) AS copy
    FROM (
        SELECT outbox.id AS outbox_id, event_id, kafka_partition, kafka_offset, {_CLAIM_LINE} AS line,
            skipped_at IS NOT NULL AS skipped,
            {digest("payload")} AS payload_digest,
            CASE WHEN pg_input_is_valid(value ->> 'wallet_id', 'uuid') THEN (value ->> 'wallet_id')::uuid END
                AS wallet_id,
            CASE WHEN pg_input_is_valid(value ->> 'version', 'bigint') THEN (value ->> 'version')::bigint END
                AS version
        FROM wallet.outbox
        CROSS JOIN LATERAL (
            SELECT CASE WHEN pg_input_is_valid(payload::text, 'jsonb') THEN payload::text::jsonb END AS event OFFSET 0
        ) AS parsed
        LEFT JOIN LATERAL jsonb_array_elements(
            CASE WHEN jsonb_typeof(event -> 'wallets') = 'array' THEN event -> 'wallets' END
        ) WITH ORDINALITY AS change (value, position) ON true
        WHERE WHICH
        OFFSET 0
    ) AS claim
"""  # noqa: S608 - constants of this module
CLAIMS: Final = _CLAIMS.replace("WHICH", in_slices(CLAIM_SLICE))
CLAIMS_UP_TO: Final = _CLAIMS.replace("WHICH", "created_at <= :up_to")
