"""The SQL of API keys."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Row, RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

# The acts on keys are serialized, so that the revisions become visible in their order. The highest one that a process
# sees then tells whether there was another act since.
LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('wallet api keys', 0))")

INSERT_AUDIT: Final = text("""
    INSERT INTO wallet.api_key_audit (actor, action, key_id, details, reason)
    VALUES (:actor, :action, :key_id, cast(:details AS jsonb), :reason)
    RETURNING id
""")

INSERT_KEY: Final = text("""
    INSERT INTO wallet.api_keys (id, caller_id, name, hash, scopes, user_id, expires_at, revision)
    VALUES (:id, :id, :name, :hash, :scopes, :user_id, now() + :days * interval '1 day', :revision)
""")

# The successor has the lifetime of its predecessor.
INSERT_SUCCESSOR: Final = text("""
    INSERT INTO wallet.api_keys (id, caller_id, name, hash, scopes, user_id, expires_at, rotated_from, revision)
    SELECT :id, caller_id, name, :hash, scopes, user_id, now() + (expires_at - created_at), id, :revision
    FROM wallet.api_keys WHERE id = :rotated_from
""")

EXPIRE: Final = text("""
    UPDATE wallet.api_keys SET expires_at = least(expires_at, now() + :hours * interval '1 hour'), revision = :revision
    WHERE id = :id
    RETURNING expires_at
""")

REVOKE: Final = text("UPDATE wallet.api_keys SET revoked_at = now(), revision = :revision WHERE id = :id")

_SELECT: Final = """
    SELECT
        key.id,
        key.name,
        CASE
            WHEN key.revoked_at IS NOT NULL THEN 'revoked'
            WHEN key.expires_at <= now() THEN 'expired'
            ELSE 'valid'
        END AS state,
        key.scopes,
        key.user_id,
        key.caller_id,
        key.created_at,
        key.expires_at,
        key.revoked_at,
        key.last_used_at,
        key.rotated_from,
        successor.id AS rotated_to
    FROM wallet.api_keys AS key
    LEFT JOIN wallet.api_keys AS successor ON successor.rotated_from = key.id
"""

LIST_KEYS: Final = text(f"{_SELECT} ORDER BY key.created_at DESC, key.id")

FIND_KEY: Final = text(f"{_SELECT} WHERE key.id = :id")

LIST_AUDIT: Final = text("""
    SELECT created_at, actor, action, details, reason FROM wallet.api_key_audit WHERE key_id = :id ORDER BY id
""")

# On a standby, and with a role that only reads, the times of use can't be written.
PROBE: Final = text("""
    SELECT
        (SELECT max(revision) FROM wallet.api_keys) AS revision,
        current_setting('transaction_read_only') = 'off'
            AND has_column_privilege('wallet.api_keys', 'last_used_at', 'UPDATE') AS may_write
""")

# How long a key is valid is told by the database's clock, not by that of the process.
VALID_KEYS: Final = text("""
    SELECT id, caller_id, hash, scopes, user_id, extract(epoch FROM expires_at - now())::float8 AS valid_seconds
    FROM wallet.api_keys
    WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
""")

# Rows that another process is writing are skipped: it writes the same time.
NOTE_USE: Final = text("""
    UPDATE wallet.api_keys SET last_used_at = now()
    WHERE id IN (
        SELECT id FROM wallet.api_keys
        WHERE id = ANY(:ids) AND (last_used_at IS NULL OR last_used_at < now() - interval '15 seconds')
        FOR UPDATE SKIP LOCKED
    )
""")


async def lock(connection: AsyncConnection) -> None:
    """Have other acts on keys wait until the transaction ends."""
    await connection.execute(LOCK)


async def insert_audit(connection: AsyncConnection, **columns: str | None) -> int:
    """Write an audit row (`actor`, `action`, `key_id`, `details` as JSON, `reason`); return its id."""
    return int((await connection.execute(INSERT_AUDIT, columns)).scalar_one())


async def insert_key(connection: AsyncConnection, columns: Mapping[str, Any], revision: int) -> None:
    """Write a key that no key precedes; `days` is its lifetime, or None."""
    await connection.execute(INSERT_KEY, {**columns, "revision": revision})


async def insert_successor(
    connection: AsyncConnection, key_id: str, key_hash: bytes, rotated_from: str, revision: int
) -> None:
    """Write a key with the name, the scopes, the user and the caller of the one that it succeeds."""
    parameters = {"id": key_id, "hash": key_hash, "rotated_from": rotated_from, "revision": revision}
    await connection.execute(INSERT_SUCCESSOR, parameters)


async def expire(connection: AsyncConnection, key_id: str, hours: float, revision: int) -> Any:
    """Let the key expire in so many hours, unless it expires earlier; return when it does."""
    parameters = {"id": key_id, "hours": hours, "revision": revision}
    return (await connection.execute(EXPIRE, parameters)).scalar_one()


async def revoke(connection: AsyncConnection, key_id: str, revision: int) -> None:
    """Revoke the key."""
    await connection.execute(REVOKE, {"id": key_id, "revision": revision})


async def list_keys(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Return all keys, newest first."""
    return (await connection.execute(LIST_KEYS)).mappings().all()


async def find_key(connection: AsyncConnection, key_id: str) -> RowMapping | None:
    """Return the key, or None."""
    return (await connection.execute(FIND_KEY, {"id": key_id})).mappings().one_or_none()


async def list_audit(connection: AsyncConnection, key_id: str) -> Sequence[RowMapping]:
    """Return the acts on the key, oldest first."""
    return (await connection.execute(LIST_AUDIT, {"id": key_id})).mappings().all()


async def probe(connection: AsyncConnection) -> tuple[int | None, bool]:
    """Return the newest revision of the keys, and whether this session may write their times of use."""
    found = (await connection.execute(PROBE)).one()
    return found.revision, found.may_write


async def valid_keys(connection: AsyncConnection) -> Sequence[Row[Any]]:
    """Return the keys that are neither revoked nor expired."""
    return (await connection.execute(VALID_KEYS)).all()


async def note_use(connection: AsyncConnection, ids: Iterable[str]) -> None:
    """Write that these keys were used now."""
    await connection.execute(NOTE_USE, {"ids": list(ids)})
