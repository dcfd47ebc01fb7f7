"""The audit's SQL. A query that compares tables of one database returns only the differences."""

from typing import Final

from sqlalchemy import text

from walletctl.verify.event_types import history_type
from walletctl.verify.facts import (
    CLAIMS,
    CLAIMS_UP_TO,
    FACT_LINE,
    FACT_SLICE,
    FACTS,
    ROW_SLICE,
    UNITS,
    in_slices,
    slice_of,
)
from walletctl.verify.lines import UNKNOWN, digest, key, line, time

# Memory for sorting and hashing millions of rows. No memory for the results of jsonb_array_elements by payload: each
# payload is different.
PREPARE: Final = text("SELECT set_config('work_mem', '128MB', true), set_config('enable_memoize', 'off', true)")

WALLET_FIGURES: Final = text("""
    SELECT statement_timestamp() AS taken_at, wallets.*, holds.*, limits.*, pruned.*
    FROM
        (SELECT count(*) AS wallet_count, min(created_at) AS oldest_at FROM wallet.wallets) AS wallets,
        (SELECT count(*) AS hold_count FROM wallet.holds) AS holds,
        (SELECT count(*) AS velocity_limit_count FROM wallet.velocity_limits) AS limits,
        (SELECT version_count AS pruned_version_count, up_to_created_at AS pruned_up_to FROM wallet.outbox_pruned)
            AS pruned
""")

# In one pass, for each partition of the topic; the rows that are not published have none. An event that the history
# need not have yet is on its way. One that was skipped never comes.
OUTBOX_FIGURES: Final = text("""
    SELECT kafka_partition AS partition, count(published_at) AS published_count,
        count(*) FILTER (WHERE parked_at IS NOT NULL AND skipped_at IS NULL) AS parked_count,
        count(skipped_at) AS skipped_count,
        count(*) FILTER (WHERE published_at IS NULL AND parked_at IS NULL) AS pending_count,
        max(id) AS last_id,
        min(kafka_offset) FILTER (WHERE published_at IS NOT NULL) AS first_offset,
        max(kafka_offset) FILTER (WHERE published_at IS NOT NULL) AS last_offset,
        min(created_at) FILTER (
            WHERE skipped_at IS NULL AND (published_at IS NULL OR kafka_offset >= coalesce(next_offset, 0))
        ) AS oldest_on_its_way_at
    FROM wallet.outbox
    LEFT JOIN unnest(cast(:partitions AS integer[]), cast(:next_offsets AS bigint[]))
        AS applied (partition, next_offset) ON applied.partition = kafka_partition
    GROUP BY kafka_partition
""")

CURRENCIES: Final = text("SELECT DISTINCT currency FROM wallet.wallets")

HISTORY_FIGURES: Final = text("""
    SELECT statement_timestamp() AS taken_at,
        (SELECT count(*) FROM history.wallet_progress) AS wallet_count,
        (SELECT count(*) FROM history.wallet_progress WHERE event_count <> max_version) AS gap_count
""")

BALANCES: Final = text("""
    SELECT coalesce(wallets.id, entries.wallet_id) AS wallet_id, wallets.id IS NOT NULL AS known,
        wallets.currency, wallets.balance_minor, coalesce(entries.total_minor, 0)::text AS total_minor,
        wallets.held_minor, coalesce(entries.held_total_minor, 0)::text AS held_total_minor,
        coalesce(entries.lowest_currency, wallets.currency) AS lowest_currency,
        coalesce(entries.highest_currency, wallets.currency) AS highest_currency
    FROM wallet.wallets
    FULL JOIN (
        SELECT wallet_id, sum(amount_minor) AS total_minor, sum(held_minor) AS held_total_minor,
            min(currency COLLATE "C") AS lowest_currency, max(currency COLLATE "C") AS highest_currency
        FROM wallet.wallet_transactions WHERE wallet_id IS NOT NULL GROUP BY wallet_id
    ) AS entries ON entries.wallet_id = wallets.id
    WHERE wallets.id IS NULL OR wallets.balance_minor <> coalesce(entries.total_minor, 0)
        OR wallets.held_minor <> coalesce(entries.held_total_minor, 0)
        OR lowest_currency <> wallets.currency OR highest_currency <> wallets.currency
""")

CURRENCY_SUMS: Final = text("""
    SELECT currency, sum(amount_minor)::text AS total_minor, sum(held_minor)::text AS held_total_minor
    FROM wallet.wallet_transactions GROUP BY currency HAVING sum(amount_minor) <> 0 OR sum(held_minor) <> 0
""")

TRANSACTION_SUMS: Final = text("""
    SELECT transaction_id, currency, sum(amount_minor)::text AS total_minor, sum(held_minor)::text AS held_total_minor
    FROM wallet.wallet_transactions GROUP BY transaction_id, currency
    HAVING sum(amount_minor) <> 0 OR sum(held_minor) <> 0
""")

# Version 1 is the creation and has no entry. Each entry is compared with the one before it, so that a wrong entry is
# one difference, and the entries behind it are none. Entries of releases that had no holds say nothing of what is held.
CHAIN_BREAKS: Final = text("""
    SELECT *, previous_balance_minor + amount_minor AS sum_minor
    FROM (
        SELECT wallet_id, wallet_version, transaction_id, currency, amount_minor, balance_after_minor,
            held_after_minor, sum(held_minor) OVER chain AS held_sum_minor,
            lag(wallet_version, 1, cast(1 AS bigint)) OVER chain AS previous_version,
            lag(balance_after_minor, 1, cast(0 AS bigint)) OVER chain::numeric AS previous_balance_minor
        FROM wallet.wallet_transactions WHERE wallet_id IS NOT NULL
        WINDOW chain AS (PARTITION BY wallet_id ORDER BY wallet_version)
    ) AS entries
    WHERE wallet_version <> previous_version + 1
        OR balance_after_minor <> previous_balance_minor + amount_minor
        OR held_after_minor <> held_sum_minor OR held_after_minor < 0
""")

LAST_VERSIONS: Final = text("""
    SELECT wallets.id AS wallet_id, wallets.version, coalesce(entries.last_version, 1) AS last_version
    FROM wallet.wallets
    LEFT JOIN (
        SELECT wallet_id, max(wallet_version) AS last_version
        FROM wallet.wallet_transactions WHERE wallet_id IS NOT NULL GROUP BY wallet_id
    ) AS entries ON entries.wallet_id = wallets.id
    WHERE wallets.version <> coalesce(entries.last_version, 1)
""")

HOLD_FIELDS: Final = ("status", "captured_minor", "amount_minor", "remaining_minor", "wallet_id", "to_wallet_id")
_REMAINING: Final = "CASE status WHEN 'open' THEN holds.amount_minor - captured_minor ELSE 0 END"
_HOLD_LINE: Final = line(
    "status", "captured_minor", "holds.amount_minor", _REMAINING, "holds.wallet_id", "to_wallet_id"
)
_ENTRIES_LINE: Final = line("last_status", "captured_sum", "held_first", "held_sum", "payers", "receivers")

# Each hold as its row has it, and as the entries of its payer tell.
HOLDS: Final = text(f"""
    SELECT * FROM (
        SELECT coalesce(holds.id, hold_id) AS hold_id,
            CASE WHEN hold_id IS NOT NULL THEN {_ENTRIES_LINE} END AS expected,
            CASE WHEN holds.id IS NOT NULL THEN {_HOLD_LINE} END AS found
        FROM wallet.holds
        FULL JOIN (
            SELECT hold_id, -sum(amount_minor) AS captured_sum, sum(held_minor) AS held_sum,
                sum(held_minor) FILTER (WHERE type = 'HOLD') AS held_first,
                (array_agg(details -> 'hold' ->> 'status' ORDER BY wallet_version DESC))[1] AS last_status,
                string_agg(DISTINCT wallet_id::text, ' ') AS payers,
                string_agg(DISTINCT CASE type WHEN 'CAPTURE' THEN counterparty_wallet_id::text
                    ELSE details -> 'hold' ->> 'to_wallet_id' END, ' ') AS receivers
            FROM wallet.wallet_transactions WHERE hold_id IS NOT NULL AND entry = 1 GROUP BY hold_id
        ) AS made ON hold_id = holds.id
    ) AS compared
    WHERE expected IS DISTINCT FROM found
""")  # noqa: S608 - constants of this module

# Whether the fact is of the time in which retention has pruned: its outbox row may be missing.
_IN_PRUNED_TIME: Final = "facts.created_at <= (SELECT up_to_created_at FROM wallet.outbox_pruned)"

LEDGER_AND_OUTBOX: Final = text(f"""
    WITH fact AS (
        SELECT wallet_id, version, cast(1 AS bigint) AS copy, {FACT_LINE} AS line, {_IN_PRUNED_TIME} AS in_pruned_time
        FROM ({FACTS}) AS facts LEFT JOIN {UNITS} ON unit.currency = facts.currency
        WHERE {in_slices(FACT_SLICE)}
    ), claim AS (
        SELECT wallet_id, version, copy, outbox_id, line FROM ({CLAIMS}) AS claims
    )
    SELECT coalesce(fact.wallet_id, claim.wallet_id) AS wallet_id, coalesce(fact.version, claim.version) AS version,
        claim.outbox_id, claim.copy, fact.line AS expected, claim.line AS found,
        claim.outbox_id IS NULL AND fact.in_pruned_time AS pruned
    FROM fact
    FULL JOIN claim ON claim.wallet_id = fact.wallet_id AND claim.version = fact.version AND claim.copy = fact.copy
    WHERE fact.line IS DISTINCT FROM claim.line
""")  # noqa: S608 - constants of this module

# What the outbox still has of the time in which retention has pruned: parked and skipped events, and replayed ones.
KEPT: Final = text(f"""
    SELECT DISTINCT concat_ws('/', wallet_id, version) AS key FROM ({CLAIMS_UP_TO}) AS claims
    WHERE wallet_id IS NOT NULL
""")  # noqa: S608 - constants of this package

_REPEATED_EVENT_IDS: Final = """
    SELECT event_id, min(id) AS first_id, max(id) AS last_id
    FROM wallet.outbox WHERE created_at > :since GROUP BY event_id HAVING count(*) > 1
"""
REPEATED_EVENT_IDS: Final = text(_REPEATED_EVENT_IDS)
HAS_REPEATED_EVENT_IDS: Final = text(f"SELECT EXISTS ({_REPEATED_EVENT_IDS})")

FIRST_OFFSETS_SINCE: Final = text("""
    SELECT kafka_partition AS partition, min(kafka_offset) AS first_offset
    FROM wallet.outbox WHERE published_at IS NOT NULL AND created_at > :since GROUP BY kafka_partition
""")

PUBLISHED_ROWS: Final = text(f"""
    SELECT id, kafka_partition AS partition, kafka_offset AS offset, event_id::text AS event_id, source_epoch,
        aggregate_id::text AS key, {digest("payload")} AS digest
    FROM wallet.outbox
    JOIN unnest(cast(:partitions AS integer[]), cast(:begins AS bigint[]), cast(:ends AS bigint[]))
        AS asked (partition, first, after)
        ON kafka_partition = partition AND kafka_offset >= first AND kafka_offset < after
    WHERE published_at IS NOT NULL ORDER BY kafka_partition, kafka_offset
""")  # noqa: S608 - constants of this module

FIND_EVENTS: Final = text(f"""
    SELECT event_id::text AS event_id, {digest("payload")} AS digest
    FROM wallet.outbox
    JOIN (SELECT DISTINCT unnest(cast(:event_ids AS uuid[])) AS id) AS asked ON asked.id = outbox.event_id
""")  # noqa: S608 - constants of this module

FIND_HISTORY_EVENTS: Final = text(f"""
    SELECT DISTINCT event_id::text AS event_id, {digest("event_data")} AS digest
    FROM history.transaction_events
    JOIN (SELECT DISTINCT unnest(cast(:event_ids AS uuid[])) AS id) AS asked ON asked.id = event_id
""")  # noqa: S608 - constants of this module

HISTORY_FIELDS: Final = (
    *("event_id", "event_type", "direction", "transaction_id", "amount_minor", "balance_after_minor", "currency"),
    *("counterparty_wallet_id", "user_id", "created_at", "sha256(event_data)"),
)
_EXPECTED_LINE: Final = line(
    f"coalesce(claims.event_id::text, '{UNKNOWN}')",
    history_type("facts.direction", "facts.event_type"),
    *("facts.direction", "facts.transaction_id", "facts.amount_minor", "facts.balance_after_minor"),
    *("facts.currency", "facts.counterparty_wallet_id", "facts.user_id", time("facts.created_at")),
    f"coalesce(claims.payload_digest, '{UNKNOWN}')",
)
_HISTORY_LINE: Final = line(
    *("event_id", "event_type", "direction", "transaction_id", "amount_minor", "balance_after_minor", "currency"),
    *("counterparty_wallet_id", "user_id", time("created_at"), digest("event_data")),
)

EXPECTED_HISTORY: Final = text(f"""
    SELECT {key("facts.wallet_id", "facts.version")} AS key, {_EXPECTED_LINE} AS line,
        claims.kafka_partition AS partition, claims.kafka_offset AS offset,
        coalesce(claims.skipped, false) AS skipped,
        coalesce(claims.outbox_id IS NULL AND {_IN_PRUNED_TIME}, false) AS pruned
    FROM ({FACTS}) AS facts
    LEFT JOIN ({CLAIMS}) AS claims
        ON claims.wallet_id = facts.wallet_id AND claims.version = facts.version AND claims.copy = 1
    WHERE {in_slices(slice_of("facts.wallet_id", "facts.version"))}
    ORDER BY facts.wallet_id, facts.version
""")  # noqa: S608 - constants of this module

HISTORY: Final = text(f"""
    SELECT {key("wallet_id", "wallet_version")} AS key, {_HISTORY_LINE} AS line
    FROM history.transaction_events WHERE {in_slices(ROW_SLICE)} ORDER BY wallet_id, wallet_version
""")  # noqa: S608 - constants of this module

_PROGRESS: Final = """
    SELECT coalesce(progress.wallet_id, events.wallet_id) AS wallet_id,
        progress.event_count, progress.max_version, events.counted, events.highest
    FROM history.wallet_progress AS progress
    FULL JOIN (
        SELECT wallet_id, count(*) AS counted, max(wallet_version) AS highest
        FROM history.transaction_events GROUP BY wallet_id
    ) AS events ON events.wallet_id = progress.wallet_id
    WHERE progress.event_count IS DISTINCT FROM events.counted OR progress.max_version IS DISTINCT FROM events.highest
"""
PROGRESS: Final = text(_PROGRESS)
HAS_WRONG_PROGRESS: Final = text(f"SELECT EXISTS ({_PROGRESS})")

DEAD_LETTERS: Final = text("""
    SELECT id, partition, "offset", reason, detail FROM history.dead_letters WHERE topic = :topic ORDER BY id
""")
