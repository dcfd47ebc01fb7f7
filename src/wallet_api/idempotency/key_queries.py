"""The SQL of the idempotency keys."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from common.postgres.raw_sql import RawStatement
from wallet_api.commands import IdempotencyKey

# A key that another transaction committed after this one had read the keys makes this one fail. It is then run again.
INSERT_KEYS_WHERE: Final = """
    INSERT INTO wallet.idempotency_keys (caller_id, key, request_hash, reply_status, reply_headers, reply_body)
    SELECT caller_id, key, request_hash, status, headers::json, body
    FROM unnest(
        cast(:caller_ids AS text[]), cast(:keys AS text[]), cast(:hashes AS bytea[]), cast(:statuses AS smallint[]),
        cast(:reply_headers AS text[]), cast(:bodies AS bytea[]), cast(:key_wallet_ids AS uuid[])
    ) AS row (caller_id, key, request_hash, status, headers, body, wallet_id)
    WHERE {only}
    ORDER BY caller_id, key
"""
INSERT_KEYS: Final = RawStatement(INSERT_KEYS_WHERE.format(only="true"))

# A claim is a lock that ends with the transaction. A row that is updated with the reply later would leave a dead row
# for each request. A key that another transaction has claimed isn't waited for.
CLAIM_KEYS: Final = RawStatement("""
    SELECT caller_id, key, pg_try_advisory_xact_lock(hashtextextended(key, hashtextextended(caller_id, 1))),
        stored.request_hash, stored.reply_status, stored.reply_headers::text, stored.reply_body
    FROM unnest(cast(:caller_ids AS text[]), cast(:keys AS text[])) AS row (caller_id, key)
    LEFT JOIN wallet.idempotency_keys AS stored USING (caller_id, key)
""")


class KeyRow(NamedTuple):
    """A row of `idempotency_keys`: the hash of the key's request and the reply to it."""

    key: IdempotencyKey
    request_hash: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes


async def claim_keys(
    connection: asyncpg.Connection, keys: Collection[IdempotencyKey]
) -> dict[IdempotencyKey, tuple[bool, KeyRow | None]]:
    """Claim the keys until the transaction ends; return for each key whether it is claimed, and its row if it has one.

    A key that another transaction has claimed is not claimed.
    """
    rows = await CLAIM_KEYS.fetch(
        connection, caller_ids=[key.caller_id for key in keys], keys=[key.text for key in keys]
    )
    return {
        (key := IdempotencyKey(caller_id, text)): (
            is_claimed,
            None if digest is None else KeyRow(key, digest, status, orjson.loads(headers), body),
        )
        for caller_id, text, is_claimed, digest, status, headers, body in rows
    }


async def insert_keys(connection: asyncpg.Connection, keys: Sequence[KeyRow]) -> None:
    """Write the keys with their replies."""
    await INSERT_KEYS.fetch(connection, **key_parameters([(None, row) for row in keys]))


def key_parameters(keys: Sequence[tuple[UUID | None, KeyRow]]) -> dict[str, Any]:
    """Return the parameters of INSERT_KEYS_WHERE: the rows, each with its acting wallet if that is named."""
    return {
        "caller_ids": [row.key.caller_id for _, row in keys],
        "keys": [row.key.text for _, row in keys],
        "hashes": [row.request_hash for _, row in keys],
        "statuses": [row.status for _, row in keys],
        "reply_headers": [orjson.dumps(row.headers).decode() for _, row in keys],
        "bodies": [row.body for _, row in keys],
        "key_wallet_ids": [wallet_id for wallet_id, _ in keys],
    }
