"""The API keys that a process accepts: all valid keys, in memory.

A request costs one hash and one dictionary look-up. The keys are read again once a second if an act changed one. So a
key that was revoked, expired or rotated is refused within `REVOKED_SECONDS_MAX`. While the keys can't be read, no
request is accepted for longer than that either.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hmac import compare_digest
from math import inf
from typing import Any, Final

import structlog
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from common.access import key_queries
from common.access.api_keys import hash_of, id_of
from common.access.caller import Caller
from common.background import in_background
from common.postgres.engine import create_engine
from common.postgres.errors import DRIVER_ERRORS, is_refused_by_server, message_with_remedy
from common.problems import Problem, Unauthorized, Unavailable
from common.rate_limited_logs import RateLimitedLog
from common.secrets import Secret

log = RateLimitedLog(structlog.get_logger())

REVOKED_SECONDS_MAX: Final = 5.0
"""How long after its revocation a key may be accepted."""
READ_SECONDS: Final = 1.0
_READ_SECONDS_MIN: Final = 0.1
_AWAY_SECONDS: Final = 0.15
_READ_TIMEOUT_SECONDS: Final = 2.0
# Changes by hand in SQL have no revision.
_READ_ALL_SECONDS: Final = 60.0
USE_SECONDS: Final = 30.0
_WAITING_MAX: Final = 32

_ERRORS: Final = (OSError, TimeoutError, SQLAlchemyError, *DRIVER_ERRORS)


@dataclass(frozen=True, slots=True)
class _Key:
    hash: bytes
    caller: Caller
    expires_at: float


# It takes the place of a key that doesn't exist, so that the same is computed for it.
_NO_KEY: Final = _Key(bytes(32), Caller("", None, frozenset()), -inf)


class KeyStore:
    """Finds the caller of an API key.

    A key that isn't found is looked up once more in the next reading of the database, which the request waits for, so
    that a new key works at once. All requests that wait share that reading, there are at most ten readings a second,
    and at most 32 requests wait. A wrong secret waits in the same way as an unknown, an expired or a revoked key.

    Args:
        engine: of the wallet database.
        clock: returns seconds, as `time.monotonic`.
    """

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._keys: Mapping[str, _Key] = {}
        self._revision: int | None = None
        self._read_at = self._all_read_at = -inf
        self._error: BaseException | None = None
        self._asked = asyncio.Event()
        self._next_reading = asyncio.Event()
        self._waiting = 0
        self._used: set[str] = set()
        self._use_written_at = clock()
        self._may_write = False

    async def caller_of(self, text: str) -> Caller | Problem:
        """Return the caller of the key, or the problem for which the request is refused."""
        key_id = id_of(text)
        if key_id is None:
            return Unauthorized.invalid("malformed")
        key_hash = hash_of(text)
        caller = self._match(key_id, key_hash)
        if caller is None or not self._is_fresh():
            if not await self._is_read_again():
                return Unavailable("The API keys can't be read; /ready gives the reason. Nothing was done. Retry.")
            caller = self._match(key_id, key_hash)
        if caller is None:
            return Unauthorized.invalid("wrong-secret" if key_id in self._keys else "unknown-key", key_id)
        self._used.add(key_id)
        return caller

    def state(self) -> str:
        """Return "ok", or why the keys can't be read."""
        if self._is_fresh():
            return "ok"
        return "not read yet" if self._error is None else f"can't be read: {message_with_remedy(self._error)}"

    def _match(self, key_id: str, key_hash: bytes) -> Caller | None:
        key = self._keys.get(key_id, _NO_KEY)
        is_right = compare_digest(key.hash, key_hash)
        return key.caller if is_right and self._clock() < key.expires_at else None

    def _is_fresh(self) -> bool:
        return self._clock() - self._read_at <= REVOKED_SECONDS_MAX

    async def _is_read_again(self) -> bool:
        """Wait for the next reading; return whether the keys are known now."""
        if self._error is None and self._waiting < _WAITING_MAX:
            self._waiting += 1
            try:
                self._asked.set()
                await self._next_reading.wait()
            finally:
                self._waiting -= 1
        return self._error is None and self._is_fresh()

    async def read_forever(self) -> None:
        """Read the keys once a second; earlier for a key that isn't found, and while the database is away."""
        while True:
            await asyncio.sleep(_READ_SECONDS_MIN)
            is_away = self._error is not None and not is_refused_by_server(self._error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), _AWAY_SECONDS if is_away else READ_SECONDS)
            await self.read()
            if self._clock() - self._use_written_at >= USE_SECONDS:
                await self.write_use()

    async def read(self) -> None:
        """Read the keys if one was changed since the last reading. A failure is kept for `state`."""
        began_at = self._clock()
        done, self._next_reading = self._next_reading, asyncio.Event()
        self._asked.clear()
        try:
            async with asyncio.timeout(_READ_TIMEOUT_SECONDS):
                await self._read_changed(began_at)
        except _ERRORS as error:
            self._error = error
            log.warning("api_keys_unreadable", error=error, why=message_with_remedy(error))
        else:
            self._read_at, self._error = began_at, None
        finally:
            done.set()

    async def _read_changed(self, began_at: float) -> None:
        async with self._engine.connect() as connection:
            revision, self._may_write = await key_queries.probe(connection)
            if revision != self._revision or began_at - self._all_read_at >= _READ_ALL_SECONDS:
                rows = await key_queries.valid_keys(connection)
                self._keys = {row.id: _key_of(row, began_at) for row in rows}
                self._revision, self._all_read_at = revision, began_at

    async def write_use(self) -> None:
        """Write when the keys were used that were used since the last time: one statement for all."""
        used, self._used = self._used, set()
        self._use_written_at = self._clock()
        if not used or not self._may_write:
            return
        try:
            async with asyncio.timeout(_READ_TIMEOUT_SECONDS), self._engine.begin() as connection:
                await key_queries.note_use(connection, used)
        except _ERRORS as error:
            self._used |= used
            log.warning("api_key_use_unwritten", error=error, why=message_with_remedy(error))


def _key_of(row: Row[Any], read_at: float) -> _Key:
    expires_at = inf if row.valid_seconds is None else read_at + row.valid_seconds
    return _Key(row.hash, Caller(f"key:{row.caller_id}", row.user_id, frozenset(row.scopes)), expires_at)


@asynccontextmanager
async def open_key_store(url: Secret, connect_timeout_seconds: float, *, on_standby: bool) -> AsyncIterator[KeyStore]:
    """Lend the store, which reads the keys during the block on a connection of its own.

    Args:
        url: of the wallet database.
        connect_timeout_seconds: the longest wait for a new connection.
        on_standby: whether of several hosts any one will do. A standby tells of a revocation after its lag.
    """
    engine = create_engine(
        url,
        "api-keys",
        pool_size=1,
        connect_timeout_seconds=connect_timeout_seconds,
        statement_timeout_seconds=_READ_TIMEOUT_SECONDS,
        lock_timeout_seconds=1,
        idle_in_transaction_timeout_seconds=5,
        # A time of use may be lost. It must not wait for a standby.
        durable=False,
        on_standby=on_standby,
    )
    store = KeyStore(engine)
    try:
        await store.read()
        async with in_background("api_keys", store.read_forever):
            yield store
        await store.write_use()
    finally:
        await engine.dispose()
