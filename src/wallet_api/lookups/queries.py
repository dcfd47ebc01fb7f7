"""The SQL that finds transactions and reads their legs: one statement a page, of one snapshot.

A caller that is bound to a user finds the transactions of that user's wallets only, and reads their legs only. Its
search reads no entry of another user's wallet, so it takes as long as if there were none.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.http.pagination import Order
from wallet_api.commands import IdempotencyKey
from wallet_api.read_queries import READABLE

Legs = Sequence[RowMapping]
"""The legs of one transaction that the caller may read, in their order; never none."""

# The columns by which a page goes on come with each leg, and the amounts that reversals moved on its side. The first
# entry has the details. OFFSET keeps the look-up of a transaction's legs an index
# look-up, however many transactions the planner expects.
_LEGS: Final = """
    SELECT found.sort_version, leg.*, reversed_by.*
    FROM ({found}) AS found
    CROSS JOIN LATERAL (
        SELECT transaction_id, entry, type, wallet_id, counterparty_wallet_id, amount_minor, currency,
            balance_after_minor, held_minor, held_after_minor, hold_id, wallet_version, reference, external_id,
            metadata, created_at, reverses_transaction_id, first_value(details) OVER (ORDER BY entry) AS details
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

# `NAME` is the column: `reference` or `external_id`.
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
BY_REFERENCE: Final = _in_both_orders(_BY_TEXT.replace("NAME", "reference"))
BY_REFERENCE_OF_USER: Final = _in_both_orders(_BY_TEXT_OF_USER.replace("NAME", "reference"))
BY_EXTERNAL_ID: Final = _in_both_orders(_BY_TEXT.replace("NAME", "external_id"))
BY_EXTERNAL_ID_OF_USER: Final = _in_both_orders(_BY_TEXT_OF_USER.replace("NAME", "external_id"))
BY_EXTERNAL_ID_OF_WALLET: Final = _in_both_orders(_BY_TEXT_OF_WALLET.replace("NAME", "external_id"))
BY_IDEMPOTENCY_KEY: Final = _in_both_orders(_BY_IDEMPOTENCY_KEY)


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


async def list_by_reference(
    connection: AsyncConnection, reference: str, caller_user_id: str | None, order: Order, after: UUID, limit: int
) -> list[Legs]:
    """Return the page of the transactions with this reference that follows transaction `after`."""
    statements = BY_REFERENCE if caller_user_id is None else BY_REFERENCE_OF_USER
    parameters = {"reference": reference, "caller_user_id": caller_user_id, "after": after, "limit": limit}
    return await _read(connection, statements[order], **parameters)


async def list_by_external_id(
    connection: AsyncConnection,
    external_id: str,
    wallet_id: UUID | None,
    caller_user_id: str | None,
    order: Order,
    after: UUID,
    limit: int,
) -> list[Legs]:
    """Return the page of the transactions with this external id, of all wallets or of one, behind `after`."""
    parameters = {"external_id": external_id, "caller_user_id": caller_user_id, "after": after, "limit": limit}
    if wallet_id is not None:
        return await _read(connection, BY_EXTERNAL_ID_OF_WALLET[order], wallet_id=wallet_id, **parameters)
    statements = BY_EXTERNAL_ID if caller_user_id is None else BY_EXTERNAL_ID_OF_USER
    return await _read(connection, statements[order], **parameters)


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
