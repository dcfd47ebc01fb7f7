"""The connections of one process: how many there may be, and how long each may keep the process waiting."""

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

_LOOK_SECONDS: Final = 0.25
_BACKLOG_MAX: Final = 2048
# Standard streams, the event loop, listening sockets, logs, Kafka's and the health check's connections.
_DESCRIPTORS_OF_ITS_OWN: Final = 64


@dataclass(frozen=True)
class ConnectionBounds:
    """What one connection may take, and how many of them there may be.

    Attributes:
        connections_max: in one process at most.
        head_deadline_seconds: for a request's head, from the accept or from the end of the reply before it.
        body_deadline_seconds: for a request's body, from the end of its head.
        reply_stall_seconds: how long a client may read nothing of a reply that waits for it.
    """

    connections_max: int = 100
    head_deadline_seconds: float = 10.0
    body_deadline_seconds: float = 5.0
    reply_stall_seconds: float = 10.0


def backlog_within(descriptors_max: int) -> int:
    """Return how many connections may wait to be accepted: all of them may be accepted at once."""
    return min(_BACKLOG_MAX, max(descriptors_max // 8, 1))


def connections_within(descriptors_max: int, wanted: int, descriptors_kept: int) -> int:
    """Return how many connections a process may have, `wanted` at most.

    Connections are accepted before they are counted, up to two backlogs of them while others are being closed.

    Args:
        descriptors_max: RLIMIT_NOFILE.
        wanted: connections that are asked for.
        descriptors_kept: what the process needs for its own connections to databases.

    Raises:
        OSError: the limit leaves none (EMFILE).
    """
    kept = 2 * backlog_within(descriptors_max) + descriptors_kept + _DESCRIPTORS_OF_ITS_OWN
    if descriptors_max <= kept:
        raise OSError(errno.EMFILE, f"{descriptors_max} open files leave none for connections, {2 * kept} do")
    return min(wanted, descriptors_max - kept)


def descriptors_max() -> int:
    """Return how many files this process may have open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 - 1 if soft == resource.RLIM_INFINITY else soft


class HttpConnection(Protocol):
    """What `Connections` asks of a connection."""

    def look(self, now: float) -> None:
        """End the connection if it is late; `now` is the event loop's time in seconds."""

    def idle_since(self) -> float | None:
        """Return since when the connection waits for a request, in the event loop's seconds; None: it doesn't."""

    def give_way(self) -> None:
        """Close the connection, which waits for a request."""


class Connections:
    """The open connections of one process.

    When there are as many as there may be, the one that has waited longest for a request gives way to a new one
    (as in nginx, which reuses idle connections when it is short of them). So probes are answered, however many
    silent connections a client holds.
    """

    def __init__(self, bounds: ConnectionBounds) -> None:
        self.bounds = bounds
        # In the order of their accepts; a set has none.
        self._open: dict[HttpConnection, None] = {}
        self._looking = False
        self._limiter = RateLimiter()

    def add(self, connection: HttpConnection) -> bool:
        """Take in a connection that waits for its first request; return False where there is no room for it."""
        if len(self._open) >= self.bounds.connections_max:
            self._make_room()
        if len(self._open) >= self.bounds.connections_max:
            self.count_end("at-capacity")
            return False
        self._open[connection] = None
        http_connections_open.inc()
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        return True

    def discard(self, connection: HttpConnection) -> None:
        """Forget a connection that is closed."""
        if connection in self._open:
            del self._open[connection]
            http_connections_open.dec()

    def count_end(self, reason: str) -> None:
        """Count a connection that the server ends, and log it: a line for each reason in five seconds."""
        http_connections_ended.labels(reason).inc()
        if (suppressed := self._limiter.admit(reason)) is not None:
            log.warning("connections_ended", reason=reason, connections=suppressed + 1)

    def _make_room(self) -> None:
        """Close the connections that have waited longest for a request: several, as each time all are looked at."""
        waiting = [(since, each) for each in self._open if (since := each.idle_since()) is not None]
        for _, connection in nsmallest(1 + len(self._open) // 64, waiting, key=itemgetter(0)):
            connection.give_way()
            self.discard(connection)
            self.count_end("gave-way")

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._looking = bool(self._open)
        if self._looking:
            loop.call_later(_LOOK_SECONDS, self._look)
        now = loop.time()
        for connection in list(self._open):
            connection.look(now)
