"""What operators do with API keys: create, rotate and revoke. Each act writes an audit row in its transaction."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.access import key_queries
from common.access.api_keys import NewKey, hash_of, new_key
from common.actor import actor


class KeyStateError(Exception):
    """The key doesn't exist, or isn't in the state that the act needs."""


async def create_key(
    engine: AsyncEngine,
    environment: str,
    name: str,
    scopes: Sequence[str],
    *,
    user_id: str | None = None,
    expires_in_days: float | None = None,
) -> NewKey:
    """Create a key. Its text is in the result and nowhere else.

    Args:
        engine: of the wallet database.
        environment: as for `new_key`.
        name: tells operators what the key is for. Several keys may have the same name.
        scopes: of `common.access.caller.SCOPES`.
        user_id: the only user whose wallets the key sees and moves; None means all users.
        expires_in_days: the key's lifetime; None means for ever.
    """
    key = new_key(environment)
    details = {"name": name, "scopes": list(scopes), "user_id": user_id, "expires_in_days": expires_in_days}
    columns = {"id": key.id, "hash": hash_of(key.text), "name": name, "scopes": list(scopes), "user_id": user_id}
    async with engine.begin() as connection:
        await key_queries.lock(connection)
        revision = await _audit(connection, "create", key.id, details)
        await key_queries.insert_key(connection, {**columns, "days": expires_in_days}, revision)
    return key


async def rotate_key(engine: AsyncEngine, environment: str, key_id: str, overlap_hours: float) -> tuple[NewKey, Any]:
    """Create the key's successor, which has the same caller, name, scopes, user and lifetime.

    Returns:
        The successor, and the time at which the old key expires.

    Raises:
        KeyStateError: the key doesn't exist, was revoked or rotated, or has expired.
    """
    successor = new_key(environment)
    async with engine.begin() as connection:
        await key_queries.lock(connection)
        key = await _find(connection, key_id)
        if key["rotated_to"] is not None:
            raise KeyStateError(f"API key {key_id} was rotated before. Rotate its successor {key['rotated_to']}")
        if key["state"] != "valid":
            raise KeyStateError(f"API key {key_id} is {key['state']}. Create a new one: walletctl keys create")
        details = {"rotated_to": successor.id, "overlap_hours": overlap_hours}
        revision = await _audit(connection, "rotate", key_id, details)
        await key_queries.insert_successor(connection, successor.id, hash_of(successor.text), key_id, revision)
        return successor, await key_queries.expire(connection, key_id, overlap_hours, revision)


async def revoke_key(engine: AsyncEngine, key_id: str, reason: str | None) -> None:
    """Revoke a key: each API process refuses it within 5 seconds. Its predecessor and its successor stay valid.

    Raises:
        KeyStateError: the key doesn't exist, or was revoked.
    """
    async with engine.begin() as connection:
        await key_queries.lock(connection)
        if (await _find(connection, key_id))["state"] == "revoked":
            raise KeyStateError(f"API key {key_id} was revoked before")
        await key_queries.revoke(connection, key_id, await _audit(connection, "revoke", key_id, {}, reason))


async def list_keys(engine: AsyncEngine) -> Sequence[RowMapping]:
    """Return all keys without their hashes, newest first."""
    async with engine.connect() as connection:
        return await key_queries.list_keys(connection)


async def show_key(engine: AsyncEngine, key_id: str) -> tuple[RowMapping, Sequence[RowMapping]]:
    """Return a key without its hash, and the acts on it.

    Raises:
        KeyStateError: the key doesn't exist.
    """
    async with engine.connect() as connection:
        return await _find(connection, key_id), await key_queries.list_audit(connection, key_id)


async def _find(connection: AsyncConnection, key_id: str) -> RowMapping:
    key = await key_queries.find_key(connection, key_id)
    if key is None:
        raise KeyStateError(f"API key {key_id} doesn't exist. List the keys: walletctl keys list")
    return key


async def _audit(
    connection: AsyncConnection, action: str, key_id: str, details: dict[str, Any], reason: str | None = None
) -> int:
    columns = {"actor": actor(), "action": action, "key_id": key_id, "reason": reason}
    return await key_queries.insert_audit(connection, **columns, details=orjson.dumps(details).decode())
