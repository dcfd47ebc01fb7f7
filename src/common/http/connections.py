"""The connections of one process: how many it may have, and how long each may keep it waiting."""

import asyncio
import errno
import resource
from dataclasses import dataclass
from heapq import nsmallest
from operator import itemgetter
from typing import Final, Protocol

import structlog

from common.http.metrics import http_connections_ended, http_connections_open
from common.rate_limited_logs import RateLimiter

log = structlog.get_logger()

_CHECK_INTERVAL_SECONDS: Final = 0.25
_BACKLOG_MAX: Final = 2048
# For standard streams, the event loop, listening sockets, logs, and the connections of Kafka and of the health check.
_DESCRIPTORS_OF_PROCESS: Final = 64


@dataclass(frozen=True)
class ConnectionBounds:
    """The bounds of connections: how many, and how long each may take.

    Attributes:
        connections_max: the most connections of one process.
        head_deadline_seconds: for a request's head, from the accept or from the end of the previous reply.
        body_deadline_seconds: for a request's body, from the end of its head.
        reply_stall_seconds: how long a client may read nothing of its reply.
    """

    connections_max: int = 100
    head_deadline_seconds: float = 10.0
    body_deadline_seconds: float = 5.0
    reply_stall_seconds: float = 10.0


def backlog_within(descriptors_max: int) -> int:
    """Return how many connections may wait to be accepted. The loop may accept all of them at once."""
    return min(_BACKLOG_MAX, max(descriptors_max // 8, 1))


def connections_within(descriptors_max: int, wanted: int, descriptors_kept: int) -> int:
    """Return how many connections a process may have, at most `wanted`.

    The loop accepts connections before they are counted: up to two backlogs of them, while older ones are being closed.

    Args:
        descriptors_max: RLIMIT_NOFILE.
        wanted: the configured number of connections.
        descriptors_kept: open files that the process needs for its own connections to databases.

    Raises:
        OSError: the limit leaves no connection (EMFILE).
    """
    kept = 2 * backlog_within(descriptors_max) + descriptors_kept + _DESCRIPTORS_OF_PROCESS
    if descriptors_max <= kept:
        raise OSError(errno.EMFILE, f"{descriptors_max} open files leave none for connections, {2 * kept} do")
    return min(wanted, descriptors_max - kept)


def descriptors_max() -> int:
    """Return how many files this process may have open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 - 1 if soft == resource.RLIM_INFINITY else soft


class HttpConnection(Protocol):
    """A connection, as `Connections` uses it."""

    def check(self, now: float) -> None:
        """End the connection if a deadline has passed; `now` is the event loop's time in seconds."""

    def idle_since(self) -> float | None:
        """Return since when the connection has been idle, in the event loop's seconds, or None if it is not idle."""

    def close_idle(self) -> None:
        """Close the connection, which is idle."""


class Connections:
    """The open connections of one process.

    At the limit, a new connection replaces the one that has been idle longest, as in nginx. So probes are answered,
    however many silent connections a client holds.
    """

    def __init__(self, bounds: ConnectionBounds) -> None:
        self.bounds = bounds
        # A dictionary keeps the order in which they were accepted; a set doesn't.
        self._open: dict[HttpConnection, None] = {}
        self._is_checking = False
        self._limiter = RateLimiter()

    def add(self, connection: HttpConnection) -> bool:
        """Add a new connection; return False if the process is at capacity."""
        if len(self._open) >= self.bounds.connections_max:
            self._make_room()
        if len(self._open) >= self.bounds.connections_max:
            self.count_end("at-capacity")
            return False
        self._open[connection] = None
        http_connections_open.inc()
        if not self._is_checking:
            self._is_checking = True
            asyncio.get_running_loop().call_later(_CHECK_INTERVAL_SECONDS, self._check_all)
        return True

    def discard(self, connection: HttpConnection) -> None:
        """Remove a connection that is closed."""
        if connection in self._open:
            del self._open[connection]
            http_connections_open.dec()

    def count_end(self, reason: str) -> None:
        """Count a connection that the server ends, and log one line for each reason in five seconds."""
        http_connections_ended.labels(reason).inc()
        if (suppressed := self._limiter.admit(reason)) is not None:
            log.warning("connections_ended", reason=reason, connections=suppressed + 1)

    def _make_room(self) -> None:
        """Close the connections that have been idle longest; several at once, since each search reads all of them."""
        waiting = [(since, each) for each in self._open if (since := each.idle_since()) is not None]
        for _, connection in nsmallest(1 + len(self._open) // 64, waiting, key=itemgetter(0)):
            connection.close_idle()
            self.discard(connection)
            self.count_end("gave-way")

    def _check_all(self) -> None:
        loop = asyncio.get_running_loop()
        self._is_checking = bool(self._open)
        if self._is_checking:
            loop.call_later(_CHECK_INTERVAL_SECONDS, self._check_all)
        now = loop.time()
        for connection in list(self._open):
            connection.check(now)
