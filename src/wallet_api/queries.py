"""The wallet API's SQL: one statement a table for a whole list of commands, arrays in, `unnest` inside."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Row, RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.tables import OUTBOX_CHANNEL
from wallet_api.commands import CreateWallet, IdempotencyClaim
from wallet_api.replies import Reply
from wallet_api.wallet import Entry, Movement, Wallet

_WALLET: Final = "id, user_id, currency, balance_minor, version, status"

READ_WALLETS: Final = text(f"SELECT {_WALLET} FROM wallet.wallets WHERE id = ANY(cast(:ids AS uuid[]))")  # noqa: S608

# Always in the order of ids: two transfers over the same wallets queue up instead of deadlocking.
_LOCK_WALLETS: Final = (
    f"SELECT {_WALLET} FROM wallet.wallets WHERE id = ANY(cast(:ids AS uuid[])) ORDER BY id FOR UPDATE"  # noqa: S608
)
LOCK_WALLETS: Final = {
    False: text(_LOCK_WALLETS),
    True: text(f"{_LOCK_WALLETS} SKIP LOCKED"),
}

# Compare-and-set. The inner SELECT takes the row locks in the order of ids, as LOCK_WALLETS does, and after
# waiting for one sees the row as it is by then. The time is the statement's, so it lies under the locks.
_UPDATE_WALLETS: Final = """
    WITH change AS MATERIALIZED (
        SELECT wallets.id, change.balance_minor, change.version
        FROM unnest(
            cast(:ids AS uuid[]), cast(:read_versions AS bigint[]),
            cast(:versions AS bigint[]), cast(:balances AS bigint[])
        ) AS change (id, read_version, version, balance_minor)
        JOIN wallet.wallets ON wallets.id = change.id AND wallets.version = change.read_version
        ORDER BY wallets.id
        FOR UPDATE OF wallets {skip}
    )
    UPDATE wallet.wallets
    SET balance_minor = change.balance_minor, version = change.version, updated_at = statement_timestamp()
    FROM change WHERE wallets.id = change.id
    RETURNING wallets.id, wallets.updated_at
"""
UPDATE_WALLETS: Final = {
    False: text(_UPDATE_WALLETS.format(skip="")),
    True: text(_UPDATE_WALLETS.format(skip="SKIP LOCKED")),
}

INSERT_ENTRIES: Final = text("""
    INSERT INTO wallet.wallet_transactions (
        transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id, type, amount_minor,
        currency, balance_after_minor, reference, metadata, created_at
    )
    SELECT transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id, type, amount_minor,
        currency, balance_after_minor, reference, metadata::jsonb, :created_at
    FROM unnest(
        cast(:transaction_ids AS uuid[]), cast(:entries AS smallint[]), cast(:wallet_ids AS uuid[]),
        cast(:wallet_versions AS bigint[]), cast(:counterparties AS uuid[]), cast(:types AS text[]),
        cast(:amounts AS bigint[]), cast(:currencies AS text[]), cast(:balances AS bigint[]),
        cast(:references AS text[]), cast(:metadata AS text[])
    ) AS row (
        transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id, type, amount_minor,
        currency, balance_after_minor, reference, metadata
    )
""")

INSERT_OUTBOX: Final = text("""
    INSERT INTO wallet.outbox (event_id, aggregate_id, lane, event_type, payload, headers, created_at, source_epoch)
    SELECT event_id, aggregate_id, lane, event_type, payload::json, headers::json, :created_at,
        (SELECT max(epoch) FROM wallet.source_epochs)
    FROM unnest(
        cast(:event_ids AS uuid[]), cast(:aggregate_ids AS uuid[]), cast(:lanes AS smallint[]),
        cast(:event_types AS text[]), cast(:payloads AS text[]), cast(:headers AS text[])
    ) WITH ORDINALITY AS row (event_id, aggregate_id, lane, event_type, payload, headers, position)
    ORDER BY position
""")

INSERT_WALLETS: Final = text("""
    INSERT INTO wallet.wallets (id, user_id, currency, external_id, metadata, created_at, updated_at)
    SELECT id, user_id, currency, external_id, metadata::jsonb, statement_timestamp(), statement_timestamp()
    FROM unnest(
        cast(:ids AS uuid[]), cast(:user_ids AS text[]), cast(:currencies AS text[]),
        cast(:external_ids AS text[]), cast(:metadata AS text[])
    ) AS row (id, user_id, currency, external_id, metadata)
    ORDER BY user_id, external_id
    ON CONFLICT (user_id, external_id) WHERE external_id IS NOT NULL DO NOTHING
    RETURNING id, created_at
""")

FIND_EXTERNAL_ID: Final = text("SELECT id FROM wallet.wallets WHERE user_id = :user_id AND external_id = :external_id")

# A claim is a lock that ends with the transaction: a row of its own, updated with the reply later, would leave a dead
# one behind for each request. What another transaction has claimed isn't waited for.
CLAIM_KEYS: Final = text("""
    SELECT key, pg_try_advisory_xact_lock(hashtextextended(key, 1)),
        stored.request_hash, stored.reply_status, stored.reply_headers, stored.reply_body
    FROM unnest(cast(:keys AS text[])) AS row (key)
    LEFT JOIN wallet.idempotency_keys AS stored USING (key)
""")

# Whoever committed one between this transaction's look and its claim makes it fail: run again, it looks again.
INSERT_REPLIES: Final = text("""
    INSERT INTO wallet.idempotency_keys (key, request_hash, reply_status, reply_headers, reply_body)
    SELECT key, request_hash, status, headers::json, body
    FROM unnest(
        cast(:keys AS text[]), cast(:hashes AS bytea[]), cast(:statuses AS smallint[]), cast(:headers AS text[]),
        cast(:bodies AS bytea[])
    ) AS row (key, request_hash, status, headers, body)
    ORDER BY key
""")

NOTIFY_RELAYS: Final = text(f"NOTIFY {OUTBOX_CHANNEL}")

# Columns by name: under `*`, a migration that adds one breaks the statements that are already prepared.
_WALLET_OUT: Final = f"{_WALLET}, external_id, metadata, created_at, updated_at"

GET_WALLET: Final = text(f"SELECT {_WALLET_OUT} FROM wallet.wallets WHERE id = :id")  # noqa: S608

_LIST_WALLETS: Final = f"""
    SELECT {_WALLET_OUT} FROM wallet.wallets
    WHERE user_id = :user_id AND id {{compare}} :after ORDER BY id {{direction}} LIMIT :limit
"""  # noqa: S608
_LIST_ENTRIES: Final = """
    SELECT transaction_id, type, wallet_id, counterparty_wallet_id, amount_minor, currency, balance_after_minor,
        wallet_version, reference, metadata, created_at
    FROM wallet.wallet_transactions
    WHERE wallet_id = :wallet_id AND wallet_version {compare} :after
    ORDER BY wallet_version {direction} LIMIT :limit
"""
_ORDERS: Final = {
    "asc": {"compare": ">", "direction": "ASC"},
    "desc": {"compare": "<", "direction": "DESC"},
}
LIST_WALLETS: Final = {order: text(_LIST_WALLETS.format(**words)) for order, words in _ORDERS.items()}
LIST_ENTRIES: Final = {order: text(_LIST_ENTRIES.format(**words)) for order, words in _ORDERS.items()}


async def read_wallets(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Wallet]:
    """Return the wallets, read without a lock."""
    return _wallets((await connection.execute(READ_WALLETS, {"ids": list(ids)})).all())


async def lock_wallets(
    connection: AsyncConnection, ids: Collection[UUID], *, skip_locked: bool = False
) -> dict[UUID, Wallet]:
    """Return the wallets, locked until the transaction ends; leave out those that others hold, if wanted."""
    return _wallets((await connection.execute(LOCK_WALLETS[skip_locked], {"ids": list(ids)})).all())


def _wallets(rows: Sequence[Row[Any]]) -> dict[UUID, Wallet]:
    return {row.id: Wallet(**row._mapping) for row in rows}  # noqa: SLF001 - SQLAlchemy's public name for it


async def update_wallets(
    connection: AsyncConnection, read: Mapping[UUID, Wallet], changed: Collection[Wallet], *, skip_locked: bool
) -> dict[UUID, datetime]:
    """Write wallets that are still at the version at which they were read; return those, and when.

    With `skip_locked` those that others hold count as changed.
    """
    parameters = {
        "ids": [wallet.id for wallet in changed],
        "read_versions": [read[wallet.id].version for wallet in changed],
        "versions": [wallet.version for wallet in changed],
        "balances": [wallet.balance_minor for wallet in changed],
    }
    rows = (await connection.execute(UPDATE_WALLETS[skip_locked], parameters)).all()
    return {row[0]: row[1] for row in rows}


async def insert_entries(
    connection: AsyncConnection,
    entries: Sequence[tuple[Movement, int, Entry]],
    created_at: datetime,
) -> None:
    """Write ledger entries: the movement, the entry's number in it, the entry."""
    sides = [(movement, entry, entry.wallet) for movement, _, entry in entries]
    parameters = {
        "transaction_ids": [movement.transaction_id for movement, _, _ in entries],
        "entries": [number for _, number, _ in entries],
        "wallet_ids": [wallet and wallet.id for _, _, wallet in sides],
        "wallet_versions": [wallet and wallet.version for _, _, wallet in sides],
        "counterparties": [entry.counterparty and entry.counterparty.id for _, entry, _ in sides],
        "types": [movement.type for movement, _, _ in sides],
        "amounts": [entry.amount_minor for _, entry, _ in sides],
        "currencies": [movement.wallet.currency for movement, _, _ in sides],
        "balances": [wallet and wallet.balance_minor for _, _, wallet in sides],
        "references": [wallet and movement.command.reference for movement, _, wallet in sides],
        "metadata": [wallet and _json(movement.command.metadata) for movement, _, wallet in sides],
        "created_at": created_at,
    }
    await connection.execute(INSERT_ENTRIES, parameters)


async def insert_outbox(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]], created_at: datetime) -> None:
    """Write outbox rows in the order given: `event_id, aggregate_id, lane, event_type, payload, headers`."""
    parameters = {
        "event_ids": [row["event_id"] for row in rows],
        "aggregate_ids": [row["aggregate_id"] for row in rows],
        "lanes": [row["lane"] for row in rows],
        "event_types": [row["event_type"] for row in rows],
        "payloads": [row["payload"] for row in rows],
        "headers": [row["headers"] and _json(row["headers"]) for row in rows],
        "created_at": created_at,
    }
    await connection.execute(INSERT_OUTBOX, parameters)


async def insert_wallets(
    connection: AsyncConnection, wallets: Sequence[tuple[UUID, CreateWallet]]
) -> dict[UUID, datetime]:
    """Write new wallets; return those whose external id was free, and when."""
    parameters = {
        "ids": [wallet_id for wallet_id, _ in wallets],
        "user_ids": [command.user_id for _, command in wallets],
        "currencies": [command.currency for _, command in wallets],
        "external_ids": [command.external_id for _, command in wallets],
        "metadata": [_json(command.metadata) for _, command in wallets],
    }
    rows = (await connection.execute(INSERT_WALLETS, parameters)).all()
    return {row[0]: row[1] for row in rows}


async def find_external_id(connection: AsyncConnection, user_id: str, external_id: str | None) -> UUID | None:
    """Return the id of the user's wallet of that external id."""
    found: UUID | None = await connection.scalar(FIND_EXTERNAL_ID, {"user_id": user_id, "external_id": external_id})
    return found


async def claim_keys(
    connection: AsyncConnection, keys: Collection[str]
) -> dict[str, tuple[bool, tuple[bytes, Reply] | None]]:
    """Claim the keys until the transaction ends; return of each whether it is ours, and its request hash and reply.

    What others have claimed is not ours. What was answered already has a reply.
    """
    rows = (await connection.execute(CLAIM_KEYS, {"keys": list(keys)})).all()
    return {
        key: (is_ours, None if digest is None else (digest, Reply(status, body, headers)))
        for key, is_ours, digest, status, headers, body in rows
    }


async def insert_replies(connection: AsyncConnection, replies: Sequence[tuple[IdempotencyClaim, Reply]]) -> None:
    """Write the reply of each claim."""
    parameters = {
        "keys": [claim.key for claim, _ in replies],
        "hashes": [claim.request_hash for claim, _ in replies],
        "statuses": [reply.status for _, reply in replies],
        "headers": [_json(reply.headers) for _, reply in replies],
        "bodies": [reply.body for _, reply in replies],
    }
    await connection.execute(INSERT_REPLIES, parameters)


async def notify_relays(connection: AsyncConnection) -> None:
    """Tell the relays that there may be something to publish."""
    await connection.execute(NOTIFY_RELAYS)


async def get_wallet(connection: AsyncConnection, wallet_id: UUID) -> RowMapping | None:
    """Return the wallet's row."""
    return (await connection.execute(GET_WALLET, {"id": wallet_id})).mappings().one_or_none()


async def list_wallets(
    connection: AsyncConnection, user_id: str, order: str, after: UUID, limit: int
) -> Sequence[RowMapping]:
    """Return a page of the user's wallets behind `after`."""
    parameters = {"user_id": user_id, "after": after, "limit": limit}
    return (await connection.execute(LIST_WALLETS[order], parameters)).mappings().all()


async def list_entries(
    connection: AsyncConnection, wallet_id: UUID, order: str, after: int, limit: int
) -> Sequence[RowMapping]:
    """Return a page of the wallet's ledger behind version `after`."""
    parameters = {"wallet_id": wallet_id, "after": after, "limit": limit}
    return (await connection.execute(LIST_ENTRIES[order], parameters)).mappings().all()


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
