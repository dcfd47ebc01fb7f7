"""Token buckets in this process: how many requests a key may send.

docs/decisions/0026-rate-limits-in-the-process.md has the reasons.
"""

from collections.abc import Callable, Hashable
from time import monotonic_ns
from typing import Final, NamedTuple

_SECOND_NS: Final = 1_000_000_000
_KEYS_MAX: Final = 50_000


class Bucket(NamedTuple):
    """A bucket after a request.

    Attributes:
        wait_seconds: until the next request is allowed; 0 if this one is.
        left: requests that are allowed at once.
        full_seconds: until the bucket is full.
    """

    wait_seconds: float
    left: int
    full_seconds: float


class TokenBuckets:
    """A token bucket for each key, as the time at which it is full again (GCRA, ITU-T I.371, annex A).

    A bucket that nothing has taken from for `burst / per_second` seconds is full, and is forgotten. Past `keys_max`
    busy keys, those that have been idle longest are forgotten too: memory is bounded by twice as many keys.

    Args:
        per_second: tokens that a bucket gets.
        burst: tokens of a full bucket.
        keys_max: half of the most keys to remember.
        clock_ns: the time in nanoseconds: whole numbers, so that no rounding refuses a request.
    """

    def __init__(
        self, per_second: float, burst: int, keys_max: int = _KEYS_MAX, clock_ns: Callable[[], int] = monotonic_ns
    ) -> None:
        self._token_ns = round(_SECOND_NS / per_second)
        self._burst_ns = burst * self._token_ns
        self._keys_max = keys_max
        self._clock_ns = clock_ns
        self._full_at_ns: dict[Hashable, int] = {}
        self._older_full_at_ns: dict[Hashable, int] = {}
        self._forgets_at_ns = clock_ns() + self._burst_ns

    @property
    def full_seconds(self) -> float:
        """How long it takes to fill an empty bucket."""
        return self._burst_ns / _SECOND_NS

    def take(self, key: Hashable) -> Bucket:
        """Take a token for a request. An empty bucket stays as it is."""
        now_ns = self._clock_ns()
        full_at_ns = self._full_at_of(key, now_ns) + self._token_ns
        left_ns = self._burst_ns - (full_at_ns - now_ns)
        if left_ns < 0:
            return Bucket(-left_ns / _SECOND_NS, 0, (full_at_ns - self._token_ns - now_ns) / _SECOND_NS)
        self._full_at_ns[key] = full_at_ns
        if now_ns >= self._forgets_at_ns or len(self._full_at_ns) >= self._keys_max:
            self._full_at_ns, self._older_full_at_ns = {}, self._full_at_ns
            self._forgets_at_ns = now_ns + self._burst_ns
        return Bucket(0.0, left_ns // self._token_ns, (full_at_ns - now_ns) / _SECOND_NS)

    def wait_seconds(self, key: Hashable) -> float:
        """Return how long it takes until the key has a token; 0 if it has one."""
        now_ns = self._clock_ns()
        full_at_ns = self._full_at_of(key, now_ns) + self._token_ns
        return max(full_at_ns - now_ns - self._burst_ns, 0) / _SECOND_NS

    def _full_at_of(self, key: Hashable, now_ns: int) -> int:
        return max(self._full_at_ns.get(key) or self._older_full_at_ns.get(key, 0), now_ns)
