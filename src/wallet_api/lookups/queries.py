"""The SQL that finds transactions and reads their legs: one statement a page, of one snapshot.

A search by metadata reads the wallet's newest version before, in a statement of its own.

A caller that is bound to a user finds the transactions of that user's wallets only, and reads their legs only. Its
search reads no entry of another user's wallet, so it takes as long as if there were none.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.http.pagination import Order
from wallet_api.commands import IdempotencyKey
from wallet_api.read_queries import READABLE, get_wallet

Legs = Sequence[RowMapping]
"""The legs of one transaction that the caller may read, in their order; never none."""

READ_VERSIONS_MAX: Final = 1000
"""How many versions of a wallet a page of a search by metadata reads: no index has the metadata."""

# The columns by which a page goes on come with each leg, and the amounts that reversals moved on its side. The first
# entry has the details. OFFSET keeps the look-up of a transaction's legs an index
# look-up, however many transactions the planner expects.
_LEGS: Final = """
    SELECT found.sort_version, leg.*, reversed_by.*
    FROM ({found}) AS found
    CROSS JOIN LATERAL (
        SELECT transaction_id, entry, type, wallet_id, counterparty_wallet_id, amount_minor, currency,
            balance_after_minor, held_minor, held_after_minor, hold_id, wallet_version, reference, external_id,
            batch_id, metadata, created_at, reverses_transaction_id,
            first_value(details) OVER (ORDER BY entry) AS details
        FROM wallet.wallet_transactions WHERE transaction_id = found.transaction_id OFFSET 0
    ) AS leg
    CROSS JOIN LATERAL (
        SELECT array_agg(transaction_id ORDER BY created_at, transaction_id) AS reversal_ids,
            array_agg(amount_minor ORDER BY created_at, transaction_id) AS reversal_amounts
        FROM wallet.wallet_transactions AS reversal
        WHERE reversal.reverses_transaction_id = leg.transaction_id
            AND reversal.wallet_id IS NOT DISTINCT FROM leg.wallet_id
    ) AS reversed_by
    WHERE cast(:caller_user_id AS text) IS NULL
        OR EXISTS (SELECT FROM wallet.wallets WHERE id = leg.wallet_id AND user_id = cast(:caller_user_id AS text))
    ORDER BY found.sort_version {direction}, leg.transaction_id {direction}, leg.entry
"""

_BY_ID: Final = "SELECT cast(:id AS uuid) AS transaction_id, 0 AS sort_version"

_BY_WALLET: Final = f"""
    SELECT transaction_id, wallet_version AS sort_version FROM wallet.wallet_transactions
    WHERE wallet_id = :wallet_id AND wallet_version {{compare}} :after
        AND EXISTS (SELECT FROM wallet.wallets WHERE id = :wallet_id AND {READABLE})
    ORDER BY wallet_version {{direction}} LIMIT :limit
"""  # noqa: S608

# The wallet's versions have no gap, so the range bounds how many entries are read, however few of them are found.
_BY_METADATA: Final = """
    SELECT transaction_id, wallet_version AS sort_version FROM wallet.wallet_transactions
    WHERE wallet_id = :wallet_id AND wallet_version BETWEEN :first AND :last
        AND metadata @> cast(:metadata AS jsonb)
    ORDER BY wallet_version {direction} LIMIT :limit
"""

# `NAME` is the column: `reference`, `external_id` or `batch_id`.
_OF_TEXT: Final = """
    SELECT DISTINCT transaction_id, 0 AS sort_version FROM wallet.wallet_transactions
    WHERE NAME = :NAME AND transaction_id {compare} :after
"""
_PAGE: Final = " ORDER BY transaction_id {direction} LIMIT :limit"
_BY_TEXT: Final = _OF_TEXT + _PAGE
# Wallet by wallet of the user: others may have any number of entries with this text.
_BY_TEXT_OF_USER: Final = f"""
    SELECT DISTINCT transaction_id, sort_version FROM wallet.wallets
    CROSS JOIN LATERAL ({_OF_TEXT} AND wallet_id = wallets.id {_PAGE}) AS own
    WHERE user_id = :caller_user_id
    {_PAGE}
"""  # noqa: S608
# A batch request has a few hundred transactions at most. OFFSET keeps the planner from walking through all transactions
# in the order of the page.
_BY_BATCH: Final = f"""
    SELECT transaction_id, 0 AS sort_version
    FROM (SELECT transaction_id FROM wallet.wallet_transactions WHERE batch_id = :batch_id OFFSET 0) AS of_batch
    WHERE transaction_id {{compare}} :after
    {_PAGE}
"""  # noqa: S608
# At most one.
_BY_TEXT_OF_WALLET: Final = f"""
    {_OF_TEXT} AND wallet_id = :wallet_id
        AND EXISTS (SELECT FROM wallet.wallets WHERE id = :wallet_id AND {READABLE})
    {_PAGE}
"""

# A refusal has no transaction, though its reply may name one. The reply to an atomic batch has one for each item,
# and that to a close with a sweep names the sweep too.
_BY_IDEMPOTENCY_KEY: Final = f"""
    SELECT named.transaction_id, 0 AS sort_version
    FROM wallet.idempotency_keys
    CROSS JOIN LATERAL (SELECT convert_from(reply_body, 'UTF8')::json AS reply) AS stored
    CROSS JOIN LATERAL (
        SELECT reply UNION ALL SELECT item -> 'body' FROM json_array_elements(reply -> 'items') AS item
    ) AS operation (body)
    CROSS JOIN LATERAL (
        VALUES ((body ->> 'transaction_id')::uuid), ((body -> 'sweep' ->> 'transaction_id')::uuid)
    ) AS named (transaction_id)
    WHERE caller_id = :caller_id AND key = :key AND reply_status < 300 AND named.transaction_id {{compare}} :after
    {_PAGE}
"""  # noqa: S608

_ORDERS: Final[Mapping[Order, Mapping[str, str]]] = {
    "asc": {"compare": ">", "direction": "ASC"},
    "desc": {"compare": "<", "direction": "DESC"},
}


def _in_both_orders(found: str) -> dict[Order, TextClause]:
    return {order: text(_LEGS.replace("{found}", found).format(**words)) for order, words in _ORDERS.items()}


BY_ID: Final = _in_both_orders(_BY_ID)
BY_WALLET: Final = _in_both_orders(_BY_WALLET)
BY_METADATA: Final = _in_both_orders(_BY_METADATA)
BY_REFERENCE: Final = _in_both_orders(_BY_TEXT.replace("NAME", "reference"))
BY_REFERENCE_OF_USER: Final = _in_both_orders(_BY_TEXT_OF_USER.replace("NAME", "reference"))
BY_EXTERNAL_ID: Final = _in_both_orders(_BY_TEXT.replace("NAME", "external_id"))
BY_EXTERNAL_ID_OF_USER: Final = _in_both_orders(_BY_TEXT_OF_USER.replace("NAME", "external_id"))
BY_EXTERNAL_ID_OF_WALLET: Final = _in_both_orders(_BY_TEXT_OF_WALLET.replace("NAME", "external_id"))
BY_BATCH: Final = _in_both_orders(_BY_BATCH)
BY_BATCH_OF_USER: Final = _in_both_orders(_BY_TEXT_OF_USER.replace("NAME", "batch_id"))
BY_IDEMPOTENCY_KEY: Final = _in_both_orders(_BY_IDEMPOTENCY_KEY)

# For a caller that reads all wallets, and for one that is bound to a user.
_BY_VALUE: Final = {
    "reference": (BY_REFERENCE, BY_REFERENCE_OF_USER),
    "external_id": (BY_EXTERNAL_ID, BY_EXTERNAL_ID_OF_USER),
    "batch_id": (BY_BATCH, BY_BATCH_OF_USER),
}


async def get_transaction(connection: AsyncConnection, transaction_id: UUID, caller_user_id: str | None) -> Legs | None:
    """Return the transaction's legs that the caller may read, if there is one."""
    found = await _read(connection, BY_ID["asc"], id=transaction_id, caller_user_id=caller_user_id)
    return found[0] if found else None


async def list_by_wallet(
    connection: AsyncConnection, wallet_id: UUID, caller_user_id: str | None, order: Order, after: int, limit: int
) -> list[Legs]:
    """Return the page of the wallet's transactions that follows version `after`."""
    parameters = {"wallet_id": wallet_id, "caller_user_id": caller_user_id, "after": after, "limit": limit}
    return await _read(connection, BY_WALLET[order], **parameters)


async def list_by_metadata(
    connection: AsyncConnection,
    wallet_id: UUID,
    metadata: Mapping[str, str],
    caller_user_id: str | None,
    order: Order,
    after: int,
    limit: int,
) -> tuple[list[Legs], int | None]:
    """Return the page of the wallet's transactions with these members of metadata that follows version `after`.

    It reads at most `READ_VERSIONS_MAX` versions of the wallet. With the page comes the version after which the search
    goes on if it found less than `limit`; None: it is over.
    """
    wallet = await get_wallet(connection, wallet_id, caller_user_id)
    first, last, read_to = versions_to_read(order, after, wallet["version"] if wallet else 0)
    if first > last:
        return [], None
    parameters = {"wallet_id": wallet_id, "caller_user_id": caller_user_id, "first": first, "last": last}
    wanted = orjson.dumps(dict(metadata)).decode()
    return await _read(connection, BY_METADATA[order], metadata=wanted, limit=limit, **parameters), read_to


def versions_to_read(order: Order, after: int, newest: int) -> tuple[int, int, int | None]:
    """Return the first and the last version of the range that follows `after`, and after which the next one follows.

    The range is empty (last < first), or there is no next one (None), where the wallet has no further versions.

    Args:
        order: of the ranges.
        after: any number.
        newest: the wallet's version.
    """
    if order == "asc":
        first = min(after, newest) + 1
        last = min(first + READ_VERSIONS_MAX - 1, newest)
        return first, last, last if last < newest else None
    last = min(after - 1, newest)
    first = max(last - READ_VERSIONS_MAX + 1, 1)
    # Version 1, a wallet's creation, is no transaction.
    return first, last, first if first > 2 else None  # noqa: PLR2004


async def list_by_value(
    connection: AsyncConnection,
    name: str,
    value: object,
    caller_user_id: str | None,
    order: Order,
    after: UUID,
    limit: int,
) -> list[Legs]:
    """Return the page of the transactions with this value of a column that `_BY_VALUE` names, behind `after`."""
    of_all, of_user = _BY_VALUE[name]
    statements = of_all if caller_user_id is None else of_user
    parameters = {name: value, "caller_user_id": caller_user_id, "after": after, "limit": limit}
    return await _read(connection, statements[order], **parameters)


async def list_by_external_id_of_wallet(
    connection: AsyncConnection,
    external_id: str,
    wallet_id: UUID,
    caller_user_id: str | None,
    order: Order,
    after: UUID,
    limit: int,
) -> list[Legs]:
    """Return the page of the transaction that this wallet has made with this external id, behind `after`."""
    parameters = {"external_id": external_id, "wallet_id": wallet_id, "caller_user_id": caller_user_id}
    return await _read(connection, BY_EXTERNAL_ID_OF_WALLET[order], after=after, limit=limit, **parameters)


async def list_by_idempotency_key(
    connection: AsyncConnection,
    key: IdempotencyKey,
    caller_user_id: str | None,
    order: Order,
    after: UUID,
    limit: int,
) -> list[Legs]:
    """Return the page of the transactions of the request with this key that follows `after`, while the key is kept."""
    parameters = {"caller_id": key.caller_id, "key": key.text, "caller_user_id": caller_user_id}
    return await _read(connection, BY_IDEMPOTENCY_KEY[order], after=after, limit=limit, **parameters)


async def _read(connection: AsyncConnection, statement: TextClause, **parameters: Any) -> list[Legs]:
    rows = (await connection.execute(statement, parameters)).mappings().all()
    return [list(legs) for _, legs in groupby(rows, key=lambda row: row["transaction_id"])]
