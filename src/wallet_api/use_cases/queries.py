"""The SQL of the use cases: each statement takes a whole list of commands, as arrays, and unnests them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import asyncpg
import orjson

from common.postgres.raw_sql import RawStatement, unless_empty
from wallet_api.commands import CreateWallet
from wallet_api.idempotency.key_queries import INSERT_KEYS_WHERE, KeyRow, key_parameters
from wallet_api.operations.operation import Entry, LedgerTransaction
from wallet_api.outbox.queries import INSERT_OUTBOX_WHERE, outbox_parameters
from wallet_api.wallet import Wallet

T = TypeVar("T")
_Entries = Sequence[tuple[LedgerTransaction, int, Entry, Wallet | None]]

_WALLET: Final = (
    "id, user_id, currency, balance_minor, version, status, blocks, held_minor, overdraft_limit_minor,"
    " balance_max_minor, has_velocity_limits"
)

# With the time after each row was read. It is later than the time of the transaction that wrote this version of the
# row, since that transaction took its time before it committed. So a wallet's times rise with its versions.
READ_WALLETS: Final = RawStatement(
    f"SELECT {_WALLET}, clock_timestamp() FROM wallet.wallets WHERE id = ANY(cast(:ids AS uuid[]))"  # noqa: S608
)

# Always in the order of ids: two transfers between the same wallets queue up instead of deadlocking. The outer SELECT
# takes the time, after the inner one has locked the row.
_LOCK_WALLETS: Final = f"""
    SELECT {_WALLET}, clock_timestamp() FROM (
        SELECT {_WALLET} FROM wallet.wallets WHERE id = ANY(cast(:ids AS uuid[])) ORDER BY id FOR UPDATE {{skip}}
    ) AS locked
"""  # noqa: S608
LOCK_WALLETS: Final = {
    False: RawStatement(_LOCK_WALLETS.format(skip="")),
    True: RawStatement(_LOCK_WALLETS.format(skip="SKIP LOCKED")),
}

# All that ledger transactions write, in one round trip. Wallets are changed by compare-and-set. The inner SELECT takes
# the row locks in the order of ids, as LOCK_WALLETS does; after a wait it sees the row's newest version. A wallet that
# isn't at the version at which it was read is lost: nothing that follows from it is written. So all other branches are
# written after these locks are taken, when the lost wallets are known.
_WRITE_TRANSACTIONS: Final = f"""
    WITH change AS MATERIALIZED (
        SELECT wallets.id, change.balance_minor, coalesce(change.held_minor, 0) AS held_minor, change.version
        FROM unnest(
            cast(:ids AS uuid[]), cast(:read_versions AS bigint[]),
            cast(:versions AS bigint[]), cast(:balances AS bigint[]), cast(:held AS bigint[])
        ) AS change (id, read_version, version, balance_minor, held_minor)
        JOIN wallet.wallets ON wallets.id = change.id AND wallets.version = change.read_version
        ORDER BY wallets.id
        FOR UPDATE OF wallets {{skip}}
    ), changed AS (
        UPDATE wallet.wallets
        SET balance_minor = change.balance_minor, held_minor = change.held_minor, version = change.version,
            updated_at = :created_at
        FROM change WHERE wallets.id = change.id
        RETURNING wallets.id
    ), lost AS MATERIALIZED (
        SELECT id FROM unnest(cast(:ids AS uuid[])) AS wanted (id) EXCEPT SELECT id FROM changed
    ), entries AS (
        INSERT INTO wallet.wallet_transactions (
            transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id, type, amount_minor,
            currency, balance_after_minor, held_minor, held_after_minor, hold_id, reverses_transaction_id, reference,
            metadata, details, external_id, batch_id, created_at
        )
        SELECT transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id, type, amount_minor,
            currency, balance_after_minor, coalesce(held_minor, 0),
            CASE WHEN wallet_id IS NOT NULL THEN coalesce(held_after_minor, 0) END, hold_id,
            reverses_transaction_id, reference,
            CASE WHEN wallet_id IS NOT NULL THEN coalesce(metadata::jsonb, '{{{{}}}}') END, details::jsonb, external_id,
            batch_id, :created_at
        FROM unnest(
            cast(:acting_wallet_ids AS uuid[]), cast(:transaction_ids AS uuid[]), cast(:entries AS smallint[]),
            cast(:wallet_ids AS uuid[]), cast(:wallet_versions AS bigint[]), cast(:counterparties AS uuid[]),
            cast(:types AS text[]), cast(:amounts AS bigint[]), cast(:currencies AS text[]),
            cast(:balances_after AS bigint[]), cast(:held_changes AS bigint[]), cast(:held_after AS bigint[]),
            cast(:hold_ids AS uuid[]), cast(:reversed_ids AS uuid[]), cast(:references AS text[]),
            cast(:metadata AS text[]), cast(:details AS text[]), cast(:external_ids AS text[]),
            cast(:batch_ids AS uuid[])
        ) AS row (
            acting_wallet_id, transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id, type,
            amount_minor, currency, balance_after_minor, held_minor, held_after_minor, hold_id,
            reverses_transaction_id, reference, metadata, details, external_id, batch_id
        )
        WHERE acting_wallet_id NOT IN (SELECT id FROM lost)
    ), events AS (
        {INSERT_OUTBOX_WHERE.format(only="aggregate_id NOT IN (SELECT id FROM lost)")}
    ), keys AS (
        {INSERT_KEYS_WHERE.format(only="wallet_id NOT IN (SELECT id FROM lost)")}
    )
    SELECT id FROM lost
"""  # noqa: S608
WRITE_TRANSACTIONS: Final = {
    False: RawStatement(_WRITE_TRANSACTIONS.format(skip="")),
    True: RawStatement(_WRITE_TRANSACTIONS.format(skip="SKIP LOCKED")),
}

# After WRITE_TRANSACTIONS, which has locked the rows and hardly ever changes a status.
WRITE_STATUSES: Final = RawStatement("""
    UPDATE wallet.wallets SET status = change.status, blocks = change.blocks
    FROM unnest(cast(:ids AS uuid[]), cast(:statuses AS text[]), cast(:blocks AS text[])) AS change (id, status, blocks)
    WHERE wallets.id = change.id
""")

INSERT_WALLETS: Final = RawStatement("""
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

FIND_EXTERNAL_ID: Final = RawStatement(
    "SELECT id FROM wallet.wallets WHERE user_id = :user_id AND external_id = :external_id"
)


class LoadedWallets(NamedTuple):
    """Wallets by their ids, and a time after each of them became what it is; None where there is no wallet."""

    by_id: dict[UUID, Wallet]
    loaded_at: datetime | None

    def with_(self, other: "LoadedWallets") -> "LoadedWallets":
        """Return the wallets of both."""
        times = [loaded.loaded_at for loaded in (self, other) if loaded.loaded_at]
        return LoadedWallets({**self.by_id, **other.by_id}, max(times, default=None))


NO_WALLETS: Final = LoadedWallets({}, None)


async def read_wallets(connection: asyncpg.Connection, ids: Collection[UUID]) -> LoadedWallets:
    """Return the wallets, read without a lock."""
    return _loaded(await READ_WALLETS.fetch(connection, ids=list(ids)))


async def lock_wallets(
    connection: asyncpg.Connection, ids: Collection[UUID], *, skip_locked: bool = False
) -> LoadedWallets:
    """Return the wallets, locked until the transaction ends.

    With `skip_locked` wallets that another transaction has locked are left out.
    """
    return _loaded(await LOCK_WALLETS[skip_locked].fetch(connection, ids=list(ids)))


def _loaded(rows: Sequence[asyncpg.Record]) -> LoadedWallets:
    wallets = {row[0]: Wallet(*row[:-1]) for row in rows}
    return LoadedWallets(wallets, max((row[-1] for row in rows), default=None))


async def write_transactions(
    connection: asyncpg.Connection,
    read: Mapping[UUID, Wallet],
    changed: Collection[Wallet],
    transactions: Sequence[LedgerTransaction],
    events: Sequence[Mapping[str, Any]],
    keys: Sequence[tuple[UUID, KeyRow]],
    created_at: datetime,
    *,
    skip_locked: bool,
) -> set[UUID]:
    """Write wallets that are still at the version at which they were read, and all that follows from them.

    Args:
        connection: the transaction.
        read: the wallets as they were read.
        changed: the wallets as they are to be.
        transactions: of the ledger; their entries are written.
        events: outbox rows, in this order.
        keys: idempotency keys with their replies, each with the wallet that acted.
        created_at: the time of all that is written.
        skip_locked: a wallet that another transaction has locked counts as changed.

    Returns:
        The wallets that another transaction changed since they were read. Nothing about them was written.
    """
    parameters = {
        "ids": [wallet.id for wallet in changed],
        "read_versions": [read[wallet.id].version for wallet in changed],
        "versions": [wallet.version for wallet in changed],
        "balances": [wallet.balance_minor for wallet in changed],
        "held": unless_empty([wallet.held_minor for wallet in changed]),
        **_entry_parameters(transactions),
        **outbox_parameters(events, created_at),
        **key_parameters(keys),
    }
    return {row[0] for row in await WRITE_TRANSACTIONS[skip_locked].fetch(connection, **parameters)}


def _entry_parameters(transactions: Sequence[LedgerTransaction]) -> dict[str, Any]:
    entries: _Entries = [
        (transaction, number, entry, entry.wallet)
        for transaction in transactions
        for number, entry in enumerate(transaction.entries, start=1)
    ]
    return {
        "acting_wallet_ids": [made.wallet.id for made, _, _, _ in entries],
        "transaction_ids": [made.id for made, _, _, _ in entries],
        "entries": [number for _, number, _, _ in entries],
        "wallet_ids": [wallet and wallet.id for _, _, _, wallet in entries],
        "wallet_versions": [wallet and wallet.version for _, _, _, wallet in entries],
        "counterparties": [made.counterparty_id(entry) for made, _, entry, _ in entries],
        "types": [made.type for made, _, _, _ in entries],
        "amounts": [entry.amount_minor for _, _, entry, _ in entries],
        "currencies": [made.wallet.currency for made, _, _, _ in entries],
        "balances_after": [wallet and wallet.balance_minor for _, _, _, wallet in entries],
        "held_changes": unless_empty([entry.held_minor for _, _, entry, _ in entries]),
        "held_after": unless_empty([wallet and wallet.held_minor for _, _, _, wallet in entries]),
        "hold_ids": unless_empty([made.hold and made.hold.id for made, _, _, _ in entries]),
        "reversed_ids": unless_empty([made.reverses_id for made, _, _, _ in entries]),
        "references": unless_empty([wallet and made.command.reference for made, _, _, wallet in entries]),
        "metadata": unless_empty(
            [wallet and _json_unless_empty(made.command.metadata) for made, _, _, wallet in entries]
        ),
        "details": unless_empty(
            [_json_unless_empty(made.details) if number == 1 else None for made, number, _, _ in entries]
        ),
        "external_ids": _of_acting([made.command.external_id for made in transactions], entries),
        "batch_ids": _of_acting([made.command.batch_id for made in transactions], entries),
    }


def _of_acting(values: Sequence[T | None], entries: _Entries) -> list[T | None]:
    """Return the values of the transactions for their first entries, and None for others; none if all are None."""
    if not any(values):
        return []
    rest = iter(values)
    return [next(rest) if number == 1 else None for _, number, _, _ in entries]


async def write_statuses(connection: asyncpg.Connection, wallets: Collection[Wallet]) -> None:
    """Write the statuses of wallets that the transaction has written already."""
    await WRITE_STATUSES.fetch(
        connection,
        ids=[wallet.id for wallet in wallets],
        statuses=[wallet.status for wallet in wallets],
        blocks=[wallet.blocks for wallet in wallets],
    )


async def insert_wallets(
    connection: asyncpg.Connection, wallets: Sequence[tuple[UUID, CreateWallet]]
) -> dict[UUID, datetime]:
    """Write new wallets; return the ids of those whose external id was free, each with its time of creation."""
    parameters = {
        "ids": [wallet_id for wallet_id, _ in wallets],
        "user_ids": [command.user_id for _, command in wallets],
        "currencies": [command.currency for _, command in wallets],
        "external_ids": [command.external_id for _, command in wallets],
        "metadata": [_json(command.metadata) for _, command in wallets],
    }
    rows = await INSERT_WALLETS.fetch(connection, **parameters)
    return {row[0]: row[1] for row in rows}


async def find_external_id(connection: asyncpg.Connection, user_id: str, external_id: str | None) -> UUID | None:
    """Return the id of the user's wallet with that external id."""
    rows = await FIND_EXTERNAL_ID.fetch(connection, user_id=user_id, external_id=external_id)
    return rows[0][0] if rows else None


def _json_unless_empty(value: Mapping[str, Any]) -> str | None:
    return _json(value) if value else None


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
