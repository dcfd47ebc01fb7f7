"""The SQL of the sums: each statement reads each row of a table once, without sorting, by as many workers as it gets.

Each row is reduced to a hash of 64 bits, seeded anew for each audit, and the hashes are summed. Two tables with the
same sum have the same rows, but for a chance of 2^-64 (decision 0032).
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import text

from walletctl.verify.event_types import told_type
from walletctl.verify.facts import (
    CLAIM_FIELDS,
    CLAIM_SLICE,
    ENVELOPE,
    FACT_FIELDS,
    FACT_SLICE,
    FACTS,
    FURTHER_CLAIM_FIELDS,
    FURTHER_FACT_FIELDS,
    ROW_SLICE,
    UNITS,
    WITHIN,
)

# PostgreSQL expects a group for each time, of which there are millions, and not for each of 256 slices. To group them
# it would sort whole rows, in gigabytes of temporary files. Each group that there is fits in memory.
SORTS: Final = text("SELECT set_config('enable_sort', :enabled, true)")


def hash_of(*fields: str) -> str:
    """Return SQL for the hash of these SQL expressions; their types count.

    The hash of a record is a linear function of the hashes of its fields. Without the second hash, two rows could
    exchange a field, and the sum would be the same.
    """
    seed = "cast(:seed AS bigint)"
    return f"hashint8extended(hash_record_extended(ROW({', '.join(fields)}), {seed}), {seed})"


def texts(fields: Sequence[str]) -> list[str]:
    """Return SQL for the texts of these SQL expressions, as JSON has them."""
    return [f"({field})::text" for field in fields]


_TRANSACTION: Final = hash_of("transaction_id", "currency")
# Entries of releases that had no holds say nothing of what is held: nothing was.
_HELD_AFTER: Final = "coalesce(held_after_minor, 0)::numeric"
_AFTER: Final = hash_of("wallet_id", "currency", "wallet_version", "balance_after_minor::numeric", _HELD_AFTER)
_BEFORE: Final = hash_of(
    *("wallet_id", "currency", "wallet_version - 1", "balance_after_minor - amount_minor::numeric"),
    f"{_HELD_AFTER} - held_minor",
)
_CREATED: Final = hash_of("id", "wallets.currency", "cast(1 AS bigint)", "cast(0 AS numeric)", "cast(0 AS numeric)")
_NOW: Final = hash_of("id", "wallets.currency", "version", "balance_minor::numeric", "wallets.held_minor::numeric")
_LAST: Final = hash_of(
    *("last.wallet_id", "last.currency", "last.wallet_version", "last.balance_after_minor::numeric"),
    "coalesce(last.held_after_minor, 0)::numeric",
)

# An entry leads its wallet from one version and balance to the next. If each wallet's entries are an unbroken chain
# from its creation to its present version and balance, each state is entered as often as it is left: `chain` sums to
# zero.
# Each transaction's sum is weighted with the hash of its id, so that the sums of two transactions can't cancel out.
LEDGER_SUMS: Final = text(f"""
    SELECT currency, count(*) AS entry_count,
        sum(amount_minor) = 0 AND sum(amount_minor::numeric * {_TRANSACTION}) = 0
            AND sum(held_minor) = 0 AND sum(held_minor::numeric * {_TRANSACTION}) = 0 AS balanced,
        coalesce(bool_or(held_after_minor < 0), false) AS negative,
        coalesce(bool_or(balance_after_minor < coalesce(held_after_minor, 0)), false) AS overdrawn,
        coalesce(
            sum({_AFTER}) FILTER (WHERE wallet_id IS NOT NULL) - sum({_BEFORE}) FILTER (WHERE wallet_id IS NOT NULL), 0
        )::text AS chain
    FROM wallet.wallet_transactions WHERE {WITHIN} GROUP BY currency
""")  # noqa: S608 - constants of this package

WALLET_SUMS: Final = text(f"""
    SELECT count(*) AS wallet_count, coalesce(sum({_CREATED}) - sum({_NOW}), 0)::text AS chain FROM wallet.wallets
""")  # noqa: S608 - constants of this package

# The same for the wallets with entries after `since`: their chains begin at the last entry before it.
WALLET_SUMS_SINCE: Final = text(f"""
    SELECT count(*) AS wallet_count, coalesce(
        sum(CASE WHEN first_version > 2 THEN {_LAST} ELSE {_CREATED} END) - sum({_NOW}), 0
    )::text AS chain
    FROM (
        SELECT wallet_id, min(wallet_version) AS first_version
        FROM wallet.wallet_transactions WHERE {WITHIN} AND wallet_id IS NOT NULL GROUP BY wallet_id
    ) AS changed
    FULL JOIN (SELECT id AS created_id FROM wallet.wallets WHERE {WITHIN}) AS created ON created_id = changed.wallet_id
    LEFT JOIN wallet.wallets ON wallets.id = coalesce(changed.wallet_id, created_id)
    LEFT JOIN wallet.wallet_transactions AS last
        ON last.wallet_id = changed.wallet_id AND last.wallet_version = first_version - 1
""")  # noqa: S608 - constants of this package

_AGREES: Final = "cast('agrees' AS text)"
_FACT: Final = hash_of("wallet_id::text", "version::text", *texts(FACT_FIELDS), "created_at", _AGREES)
_CLAIM: Final = hash_of("value ->> 'wallet_id'", "value ->> 'version'", *CLAIM_FIELDS, "created_at", ENVELOPE)
_FURTHER_FACT: Final = hash_of("wallet_id::text", "version::text", *texts(FURTHER_FACT_FIELDS))
_FURTHER_CLAIM: Final = hash_of("value ->> 'wallet_id'", "value ->> 'version'", *texts(FURTHER_CLAIM_FIELDS))
_CLAIMED_EVENT: Final = hash_of("value ->> 'wallet_id'", "value ->> 'version'", "event_id", "payload::text")
_ROW_FIELDS: Final = (
    *(told_type("direction", "event_type"), "direction", "transaction_id"),
    *("amount_minor * major", "balance_after_minor * major"),
    *("events.currency", "counterparty_wallet_id", "user_id"),
)
_ROW: Final = hash_of("wallet_id::text", "wallet_version::text", *texts(_ROW_FIELDS), "created_at", _AGREES)
_APPLIED_EVENT: Final = hash_of("wallet_id::text", "wallet_version::text", "event_id", "event_data::text")

FACT_SUMS: Final = text(f"""
    SELECT slice, count(*) AS row_count, sum(hash)::text AS facts, NULL AS events, sum(further_hash)::text AS further
    FROM (
        SELECT {FACT_SLICE} AS slice, {_FACT} AS hash, {_FURTHER_FACT} AS further_hash
        FROM ({FACTS}) AS facts LEFT JOIN {UNITS} ON unit.currency = facts.currency
        WHERE {WITHIN}
    ) AS hashes GROUP BY slice
""")  # noqa: S608 - constants of this package

# A payload that jsonb refuses, or that has no list of wallets, ends the statement with an error of class 22. The
# payload is parsed once for each row, because it is an element of an array.
CLAIM_SUMS: Final = text(f"""
    SELECT slice, count(*) AS row_count, sum(fact_hash)::text AS facts, sum(event_hash)::text AS events,
        sum(further_hash)::text AS further
    FROM (
        SELECT {CLAIM_SLICE} AS slice, {_CLAIM} AS fact_hash, {_CLAIMED_EVENT} AS event_hash,
            {_FURTHER_CLAIM} AS further_hash
        FROM wallet.outbox
        CROSS JOIN LATERAL unnest(ARRAY[payload::text::jsonb]) AS parsed (event)
        LEFT JOIN LATERAL jsonb_array_elements(event -> 'wallets') WITH ORDINALITY AS change (value, position) ON true
        WHERE {WITHIN}
    ) AS hashes GROUP BY slice
""")  # noqa: S608 - constants of this package

HISTORY_SUMS: Final = text(f"""
    SELECT slice, count(*) AS row_count, sum(fact_hash)::text AS facts, sum(event_hash)::text AS events, NULL AS further
    FROM (
        SELECT {ROW_SLICE} AS slice, {_ROW} AS fact_hash, {_APPLIED_EVENT} AS event_hash
        FROM history.transaction_events AS events LEFT JOIN {UNITS} ON unit.currency = events.currency
        WHERE {WITHIN}
    ) AS hashes GROUP BY slice
""")  # noqa: S608 - constants of this package

# The first 64 bits of SHA-256, which the reader of the topic computes too. A block is 1,024 offsets of a partition. A
# row whose record the topic no longer keeps has no block. An element of an array has no statistics: with those of
# `kafka_offset`, PostgreSQL expects as many blocks as rows, and takes no parallel workers.
RECORD_SUMS: Final = text("""
    SELECT partition, block, count(*) AS row_count,
        sum(('x' || encode(substr(digest, 1, 8), 'hex'))::bit(64)::bigint)::text AS records
    FROM (
        SELECT kafka_partition AS partition, block, sha256(convert_to(
            concat_ws(' ', kafka_offset, event_id, source_epoch, aggregate_id, payload::text), 'UTF8'
        )) AS digest
        FROM wallet.outbox
        LEFT JOIN unnest(cast(:partitions AS integer[]), cast(:begins AS bigint[])) AS read (partition, first)
            ON read.partition = kafka_partition
        CROSS JOIN LATERAL unnest(
            ARRAY[CASE WHEN kafka_offset >= coalesce(first, kafka_offset) THEN kafka_offset >> 10 END]
        ) AS placed (block)
        WHERE published_at IS NOT NULL AND (created_at > :since OR kafka_offset >= first)
    ) AS digests GROUP BY partition, block
""")
