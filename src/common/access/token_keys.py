"""The keys that verify tokens, kept up to date."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from time import monotonic
from typing import Final

import jwt
import structlog

from common.access.key_documents import Unusable
from common.access.key_sources import READ_TIMEOUT_SECONDS, KeySource
from common.access.metrics import jwt_key_reads, jwt_keys_stale
from common.access.signing_keys import SigningKeys, read_keys
from common.checks import WARNING
from common.pauses import Pauses, pause
from common.rate_limited_logs import RateLimitedLog

log = structlog.get_logger()
limited_log = RateLimitedLog(log)

_FAILURE_PAUSES: Final = Pauses(1.0, 30.0)
# Requests that wait for keys keep a place of REQUESTS_MAX: tokens with made-up keys must not take them all.
_WAITING_MAX: Final = 32


class TokenKeys:
    """The keys of a source, read again and again by `run`.

    A key that the source no longer has stops working at the next read. While the source cannot be read, the old keys
    are used, for `stale_seconds_max` at most.

    Args:
        source: has the keys.
        algorithms: those that may sign a token.
        stale_seconds_max: how long keys are used after the last read that succeeded.
        clock: returns seconds, as `time.monotonic`.

    Attributes:
        generation: another number whenever the keys are other ones.
        trouble: what an operator has to mend, or nothing.
    """

    def __init__(
        self,
        source: KeySource,
        algorithms: Collection[str],
        stale_seconds_max: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.generation = 0
        self.trouble = f"{source.name} has not been read yet"
        self._source = source
        self._algorithms = algorithms
        self._stale_seconds_max = stale_seconds_max
        self._clock = clock
        self._keys = SigningKeys()
        self._document: bytes | None = None
        self._document_at = 0.0
        self._read_at = -source.cooldown_seconds
        self._is_reading = False
        self._wanted = asyncio.Event()
        self._next_read = asyncio.Event()
        self._waiting = 0

    @property
    def are_known(self) -> bool:
        """Whether the source was read, and not too long ago."""
        return self._document is not None and self._clock() - self._document_at <= self._stale_seconds_max

    async def find(self, key_id: str | None, algorithm: str) -> tuple[jwt.PyJWK, ...]:
        """Return the keys that may have signed a token with this `kid` and `alg`.

        An unknown key makes `run` read the source again, once for all requests that wait for it, and at most once in
        the source's `cooldown_seconds`.
        """
        found = self._candidates(key_id, algorithm)
        if not found and self._waiting < _WAITING_MAX and self._asks_for_a_read():
            await self._wait_for_a_read()
            found = self._candidates(key_id, algorithm)
        return found

    def state(self) -> str:
        """Return "ok", what needs attention, or why no token can be verified."""
        if not self.are_known:
            return self.trouble or f"{self._source.name} has not been read for {self._stale_seconds_max:g} s"
        return f"{WARNING}{self.trouble}" if self.trouble else "ok"

    def _candidates(self, key_id: str | None, algorithm: str) -> tuple[jwt.PyJWK, ...]:
        # Asked at each use: a read that hangs must not keep old keys in use.
        return self._keys.candidates(key_id, algorithm) if self.are_known else ()

    def _asks_for_a_read(self) -> bool:
        if not self._is_reading and self._clock() - self._read_at >= self._source.cooldown_seconds:
            self._wanted.set()
        return self._is_reading or self._wanted.is_set()

    async def _wait_for_a_read(self) -> None:
        self._waiting += 1
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._next_read.wait(), READ_TIMEOUT_SECONDS + 1)
        finally:
            self._waiting -= 1

    async def run(self) -> None:
        """Read the source for ever: at its interval, when a token needs it, and after failures with growing pauses."""
        failures = 0
        while True:
            failures = 0 if await self._read() else failures + 1
            ended, self._next_read = self._next_read, asyncio.Event()
            ended.set()
            await pause(self._wanted, _FAILURE_PAUSES.after(failures) if failures else self._source.interval_seconds)

    async def _read(self) -> bool:
        self._wanted.clear()
        self._is_reading, self._read_at = True, self._clock()
        try:
            document = await self._source.read()
        finally:
            self._is_reading = False
        keys = document if isinstance(document, Unusable) else self._parse(document)
        if isinstance(keys, Unusable):
            self._note_failure(keys.reason)
            return False
        assert isinstance(document, bytes)
        self._note_success(document, keys)
        return True

    def _parse(self, document: bytes) -> SigningKeys | Unusable:
        return self._keys if document == self._document else read_keys(document, self._algorithms)

    def _note_success(self, document: bytes, keys: SigningKeys) -> None:
        is_changed = document != self._document
        if is_changed:
            self._document, self._keys = document, keys
            self.generation += 1
            log.info("jwt_keys_read", source=self._source.name, key_ids=sorted({kid for kid, _ in keys.keys if kid}))
        self._document_at = self._clock()
        self.trouble = "" if keys.keys else f"{self._source.name} has no key for {', '.join(self._algorithms)}"
        jwt_key_reads.labels("changed" if is_changed else "unchanged").inc()
        jwt_keys_stale.set(0)

    def _note_failure(self, reason: str) -> None:
        used = f"; keys of {self._clock() - self._document_at:.0f} s ago are used" if self.are_known else ""
        self.trouble = f"{self._source.name} {reason}{used}"
        limited_log.warning("jwt_keys_unreadable", error=None, source=self._source.name, reason=reason)
        jwt_key_reads.labels("failed").inc()
        jwt_keys_stale.set(1)
