"""What each role in PostgreSQL may do, with the reason: the one declaration of all privileges.

`common/postgres/grants.py` makes SQL of it, and compares it with the catalogue. docs/roles.md is generated from it. A
table without a declaration here fails a test. A role that is not named may do nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from common.tables.roles import Grant, Role

_AUDIT: Final = Grant(Role.AUDITOR, "SELECT", "audits")
# A row lock needs UPDATE on a column (PostgreSQL manual, SELECT, "The Locking Clause"). A role that may delete a
# row can do no more harm by changing its time.
_LOCK: Final = "locks the rows that are to be deleted"
_LOCKED: Final = ("created_at",)

_LIMITS: Final = ("overdraft_limit_minor", "balance_max_minor", "has_velocity_limits")
_USED: Final = ("window_start", "used_minor", "used_count")
_ACTS: Final = "`wallet freeze|unfreeze|close|reopen|limits`, `wallet hold capture|void`, `transaction reverse`"
_ENDS_HOLDS: Final = "`wallet hold capture|void`; `wallet close` with a sweep and `transaction reverse` expire holds"
_EVENT: Final = ("event_id", "aggregate_id", "lane", "event_type", "payload", "headers", "created_at")
_SETTLED: Final = ("published_at", "kafka_partition", "kafka_offset")
_PRUNED: Final = ("row_count", "version_count", "up_to_id", "up_to_created_at")
_RECORD: Final = ("topic", "partition", "offset", "topic_id", "key", "value", "headers", "reason", "detail")

TABLES: Final[Mapping[str, Sequence[Grant]]] = {
    "wallet.wallets": (
        Grant(Role.API, "SELECT", "reads and locks the wallets of a request"),
        # A new wallet has the defaults: balance 0, version 1, active.
        Grant(
            Role.API,
            "INSERT",
            "creates wallets, with no balance",
            ("id", "user_id", "currency", "external_id", "metadata", "created_at", "updated_at"),
        ),
        Grant(Role.API, "UPDATE", "moves and reserves money", ("balance_minor", "held_minor", "version", "updated_at")),
        Grant(Role.API, "UPDATE", "freezes, unfreezes, closes and reopens wallets", ("status", "blocks")),
        Grant(Role.API, "UPDATE", "sets limits", _LIMITS),
        Grant(Role.OPERATOR, "SELECT", "`wallet`, `history rebuild`, `restore lost` and `verify` look wallets up"),
        Grant(
            Role.OPERATOR,
            "UPDATE",
            _ACTS,
            ("balance_minor", "held_minor", "version", "updated_at", "status", "blocks", *_LIMITS),
        ),
        _AUDIT,
    ),
    # No role changes or deletes an entry. A trigger refuses it to the owner and to superusers too.
    "wallet.wallet_transactions": (
        Grant(Role.API, "SELECT", "shows a wallet's ledger"),
        Grant(Role.API, "INSERT", "moves money"),
        Grant(
            Role.OPERATOR,
            "SELECT",
            "`wallet`, `transaction`, `history rebuild`, `restore lost` and `verify` read the ledger",
        ),
        Grant(Role.OPERATOR, "INSERT", f"{_ACTS} write entries"),
        _AUDIT,
    ),
    "wallet.holds": (
        Grant(Role.API, "SELECT", "reads the holds of a request"),
        Grant(Role.API, "INSERT", "reserves money"),
        Grant(Role.API, "UPDATE", "captures, voids and expires holds", ("captured_minor", "status", "updated_at")),
        Grant(
            Role.OPERATOR,
            "SELECT",
            "`wallet hold`, `wallet close` and `transaction reverse` read holds; `verify` compares them with entries",
        ),
        # One statement writes new holds and those that have changed.
        Grant(Role.OPERATOR, "INSERT", _ENDS_HOLDS),
        Grant(Role.OPERATOR, "UPDATE", _ENDS_HOLDS, ("captured_minor", "status", "updated_at")),
        _AUDIT,
    ),
    "wallet.velocity_limits": (
        Grant(Role.API, "SELECT", "reads the limits of a request's wallets"),
        Grant(Role.API, "INSERT", "sets limits"),
        Grant(Role.API, "UPDATE", "counts what is used", _USED),
        Grant(Role.API, "DELETE", "replaces limits"),
        Grant(Role.OPERATOR, "SELECT", "`wallet limits`; `verify` compares limits with the ledger"),
        Grant(Role.OPERATOR, "INSERT", "`wallet limits` sets limits"),
        Grant(Role.OPERATOR, "UPDATE", "`wallet hold void`, `wallet close` with a sweep: counts what is used", _USED),
        Grant(Role.OPERATOR, "DELETE", "`wallet limits` replaces limits"),
        _AUDIT,
    ),
    "wallet.outbox": (
        Grant(Role.API, "INSERT", "writes events, all of them pending", (*_EVENT, "source_epoch")),
        Grant(Role.RELAY, "SELECT", "reads pending events"),
        Grant(
            Role.RELAY,
            "UPDATE",
            "settles and parks events",
            (*_SETTLED, "attempts", "last_error", "parked_at"),
        ),
        Grant(Role.RELAY, "DELETE", "prunes published events, and moves misplaced ones"),
        Grant(
            Role.RELAY,
            "INSERT",
            "moves events whose ids are misplaced (decision 0017)",
            ("id", *_EVENT, "attempts", "last_error", "parked_at", "source_epoch"),
        ),
        Grant(Role.OPERATOR, "SELECT", "`outbox`, `history rebuild` and `verify` read events"),
        Grant(Role.OPERATOR, "INSERT", f"{_ACTS} write events, all of them pending", (*_EVENT, "source_epoch")),
        Grant(
            Role.OPERATOR,
            "UPDATE",
            "`outbox park|retry|skip|replay`, `restore begin`",
            (*_SETTLED, "last_error", "parked_at", "skipped_at", "source_epoch"),
        ),
        Grant(Role.OPERATOR, "DELETE", "`outbox prune`; `restore begin` locks the table"),
        _AUDIT,
    ),
    "wallet.wallet_audit": (
        Grant(
            Role.OPERATOR,
            "INSERT",
            "each act on a wallet is recorded, and no record is changed",
            ("actor", "action", "wallet_id", "transaction_id", "reason"),
        ),
        _AUDIT,
    ),
    "wallet.outbox_lanes": (
        Grant(Role.RELAY, "SELECT", "claims lanes"),
        Grant(Role.RELAY, "UPDATE", "leases lanes, and raises low waters", ("low_water",)),
        Grant(Role.OPERATOR, "SELECT", "`outbox status`"),
        Grant(
            Role.OPERATOR, "UPDATE", "`outbox park|retry|skip|replay` lock lanes, and lower low waters", ("low_water",)
        ),
        _AUDIT,
    ),
    "wallet.outbox_audit": (
        Grant(
            Role.OPERATOR,
            "INSERT",
            "each action on the outbox is recorded, and no record is changed",
            ("actor", "action", "selection", "row_count", "reason"),
        ),
        _AUDIT,
    ),
    "wallet.outbox_pruned": (
        Grant(Role.RELAY, "SELECT", "retention tells which ids it has pruned"),
        Grant(Role.RELAY, "UPDATE", "retention counts what it prunes", _PRUNED),
        Grant(Role.OPERATOR, "SELECT", "`outbox status`, `verify`"),
        Grant(Role.OPERATOR, "UPDATE", "`outbox prune` counts what it prunes", _PRUNED),
        _AUDIT,
    ),
    "wallet.source_epochs": (
        Grant(Role.API, "SELECT", "writes events with the newest epoch", ("epoch",)),
        Grant(Role.OPERATOR, "SELECT", "`outbox replay`, `history rebuild` and `verify` ask for the epoch"),
        Grant(
            Role.OPERATOR,
            "INSERT",
            "`restore begin` starts an epoch",
            ("epoch", "actor", "reason", "topic_id", "topic_ends"),
        ),
        _AUDIT,
    ),
    "wallet.verified_horizons": (
        Grant(Role.OPERATOR, "SELECT", "`verify --since` begins at the horizon of the last clean run"),
        Grant(Role.OPERATOR, "INSERT", "a clean `verify` stores its horizon"),
        Grant(Role.OPERATOR, "UPDATE", "a clean `verify` moves its horizon"),
        _AUDIT,
        Grant(Role.AUDITOR, "INSERT", "a clean `verify` stores its horizon"),
        Grant(Role.AUDITOR, "UPDATE", "a clean `verify` moves its horizon"),
    ),
    "wallet.idempotency_keys": (
        Grant(Role.API, "SELECT", "answers a repeated request"),
        Grant(Role.API, "INSERT", "stores the reply to a request"),
        Grant(Role.RELAY, "SELECT", "retention finds old keys", ("caller_id", "key", "created_at")),
        Grant(Role.RELAY, "UPDATE", _LOCK, _LOCKED),
        Grant(Role.RELAY, "DELETE", "retention deletes old keys"),
        # One statement writes all that an operation writes, also where there is no key.
        Grant(Role.OPERATOR, "INSERT", f"{_ACTS}: the statement names it, with no rows"),
        Grant(Role.OPERATOR, "SELECT", "`outbox prune` finds old keys", ("caller_id", "key", "created_at")),
        Grant(Role.OPERATOR, "UPDATE", _LOCK, _LOCKED),
        Grant(Role.OPERATOR, "DELETE", "`outbox prune` deletes old keys"),
        _AUDIT,
    ),
    "wallet.api_keys": (
        Grant(Role.API, "SELECT", "knows the valid keys"),
        Grant(Role.API, "UPDATE", "notes when a key was used", ("last_used_at",)),
        Grant(Role.READER, "SELECT", "knows the valid keys"),
        Grant(Role.READER, "UPDATE", "notes when a key was used", ("last_used_at",)),
        Grant(Role.OPERATOR, "SELECT", "`keys list|show`"),
        Grant(
            Role.OPERATOR,
            "INSERT",
            "`keys create|rotate`",
            ("id", "caller_id", "name", "hash", "scopes", "user_id", "expires_at", "rotated_from", "revision"),
        ),
        Grant(Role.OPERATOR, "UPDATE", "`keys rotate|revoke`", ("expires_at", "revoked_at", "revision")),
        _AUDIT,
    ),
    "wallet.api_key_audit": (
        Grant(Role.OPERATOR, "SELECT", "`keys show`"),
        Grant(
            Role.OPERATOR,
            "INSERT",
            "each act on a key is recorded, and no record is changed",
            ("actor", "action", "key_id", "details", "reason"),
        ),
        _AUDIT,
    ),
    "wallet.alembic_version": (
        Grant(Role.OPERATOR, "SELECT", "`db status`"),
        _AUDIT,
    ),
    # The operator owns the next two tables: see OPERATORS_TABLES.
    "history.transaction_events": (
        Grant(Role.CONSUMER, "SELECT", "drops duplicates, finds gaps"),
        Grant(Role.CONSUMER, "INSERT", "applies events"),
        Grant(Role.READER, "SELECT", "serves the history"),
        _AUDIT,
    ),
    "history.wallet_progress": (
        Grant(Role.CONSUMER, "SELECT", "finds gaps"),
        Grant(Role.CONSUMER, "INSERT", "counts events"),
        Grant(Role.CONSUMER, "UPDATE", "counts events", ("event_count", "max_version", "updated_at")),
        Grant(Role.READER, "SELECT", "says whether a history is complete"),
        _AUDIT,
    ),
    "history.processed_offsets": (
        Grant(Role.CONSUMER, "SELECT", "reads its positions"),
        Grant(Role.CONSUMER, "INSERT", "begins with a partition"),
        Grant(Role.CONSUMER, "UPDATE", "moves its positions", ("next_offset", "updated_at")),
        Grant(Role.OPERATOR, "SELECT", "`history status`, `history rebuild` and `verify` read the positions"),
        Grant(Role.OPERATOR, "INSERT", "`history rebuild` sets the positions"),
        Grant(
            Role.OPERATOR,
            "UPDATE",
            "`history rebuild` sets the positions, `restore begin` halts the history",
            ("next_offset", "topic_id", "source_epoch", "updated_at"),
        ),
        Grant(Role.OPERATOR, "DELETE", "`history rebuild` drops positions of partitions that are gone"),
        _AUDIT,
    ),
    "history.dead_letters": (
        Grant(Role.CONSUMER, "SELECT", "counts version conflicts, finds old dead letters"),
        Grant(Role.CONSUMER, "INSERT", "stores records that can't be applied", _RECORD),
        Grant(Role.CONSUMER, "UPDATE", _LOCK, _LOCKED),
        Grant(Role.CONSUMER, "DELETE", "retention deletes old dead letters"),
        Grant(Role.OPERATOR, "SELECT", "`history dead-letters list|show`, `history status`, `verify`"),
        Grant(Role.OPERATOR, "INSERT", "`history rebuild` stores records that can't be applied", _RECORD),
        Grant(Role.OPERATOR, "UPDATE", "`history dead-letters retry` notes the present reason", ("reason", "detail")),
        Grant(Role.OPERATOR, "DELETE", "`history dead-letters retry|prune`, `history rebuild`"),
        _AUDIT,
    ),
    "history.alembic_version": (
        Grant(Role.OPERATOR, "SELECT", "`db status`; `history rebuild` notices a migration"),
        _AUDIT,
    ),
}
"""The privileges on each table."""

OPERATORS_TABLES: Final = ("history.transaction_events", "history.wallet_progress")
"""The tables that the operator owns, not the owner.

`history rebuild` puts new tables in their place, and only a table's owner can. They have no triggers, and a rebuild can
make them again. The owner is a member of the operator, so that migrations can alter them.
"""

SEQUENCES: Final[Mapping[str, Sequence[Grant]]] = {
    # An INSERT into an identity column needs no privilege on its sequence.
    "wallet.outbox_id_seq": (
        Grant(Role.RELAY, "SELECT", "learns up to which id the outbox may have rows"),
        Grant(Role.RELAY, "UPDATE", "raises the sequence where it is behind (decision 0017)"),
        Grant(Role.OPERATOR, "SELECT", "`outbox status` says whether the sequence is behind"),
    ),
    "wallet.outbox_audit_id_seq": (),
    "wallet.wallet_audit_id_seq": (),
    "wallet.api_key_audit_id_seq": (),
    "history.dead_letters_id_seq": (),
}
"""The privileges on each sequence."""

FUNCTIONS: Final = ("wallet.refuse_beyond_limits()", "wallet.refuse_change()", "wallet.refuse_unbalanced()")
"""The functions, of triggers all. No role may call them; a trigger needs no privilege for it."""

DATABASE: Final = (
    *(Grant(role, "CONNECT", "logs in") for role in Role),
    # CREATE SCHEMA IF NOT EXISTS asks for it, whether the schema exists or not.
    Grant(Role.OWNER, "CREATE", "`db migrate` makes the schemas"),
)
"""The privileges on the database, for roles that have one on a schema in it."""

SCHEMAS: Final[Mapping[str, Sequence[Grant]]] = {
    "wallet": tuple(
        Grant(role, "USAGE", "reaches its tables")
        for role in (Role.API, Role.RELAY, Role.READER, Role.OPERATOR, Role.AUDITOR)
    ),
    "history": (
        *(
            Grant(role, "USAGE", "reaches its tables")
            for role in (Role.CONSUMER, Role.READER, Role.OPERATOR, Role.AUDITOR)
        ),
        Grant(Role.OPERATOR, "CREATE", "`history rebuild` makes new tables beside the live ones"),
    ),
}
"""The privileges on each schema. No role has any on `public`."""
