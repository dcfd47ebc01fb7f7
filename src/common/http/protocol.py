"""HTTP/1.1 on one connection: uvicorn's protocol on llhttp, made to keep to RFC 9112 where it doesn't.

What llhttp refuses stays refused. This adds: an offer to upgrade is ignored, and the request's body stays its body; the
rules on Host, Transfer-Encoding and the version; deadlines; replies for a client that has shut down its sending side;
problem documents. (docs/decisions/0015-http-framing.md)
"""

from array import array
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any, Final
from urllib.parse import quote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from common.http.connections import Connections
from common.http.framing import HEAD_BYTES_MAX, check_fields, check_size, too_large
from common.problems import (
    MEDIA_TYPE,
    BadRequest,
    MethodNotAllowed,
    Problem,
    RequestTimeout,
    Unavailable,
)

_LINGER_SECONDS: Final = 1.0


class _Trailers(list[tuple[bytes, bytes]]):
    """Where the fields after a chunked body go: nowhere (RFC 9110, section 6.5.1)."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        """Drop the field."""


_TRAILERS: Final = _Trailers()


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    Requests on it are answered in their order. Once it has to end, what has come whole is answered first, then the
    reason is told, and nothing that comes later is looked at.

    Args:
        connections: of this process.
        options: uvicorn's own.
    """

    def __init__(self, *, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        # Of the request whose head is coming; the trailers of one whose head has come, or before the first.
        self.headers = _TRAILERS
        self._connections = connections
        self._bounds = connections.bounds
        # Requests whose head has come and whose reply hasn't gone.
        self._unanswered = 0
        self._deadline: float | None = None
        self._waits_since = 0.0
        self._offers_upgrade = False
        self._head_bytes = self._segment_bytes = 0
        self._last_words: bytes | None = None
        self._unread_bytes = 0
        self._unread_since = 0.0

    # The connection

    def connection_made(self, transport: Any) -> None:
        """Take the connection in, or answer 503 where there is no room for it."""
        super().connection_made(transport)
        if self._connections.add(self):
            self._unread_since = self.loop.time()
            self._wait(self._bounds.head_deadline_seconds)
            return
        self._last_words = b""
        transport.write(self._document(Unavailable("The server has as many connections as it may. Retry later.")))
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the connection is ending."""
        if self._last_words is not None:
            return
        self._segment_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._go_on_without_upgrade(memoryview(data)[offer.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(error)
        else:
            if self.headers is not _TRAILERS:
                self._head_bytes += len(data)
                if not self._unanswered:
                    self._deadline = self._waits_since + self._bounds.head_deadline_seconds
                if self._head_bytes > HEAD_BYTES_MAX:
                    self._end(self._refusal(too_large()))

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what has come whole though the client sends no more (RFC 9112, section 9.6); return True meanwhile."""
        if self._last_words is None:
            self._end(b"")
        return self._unanswered > 0

    def look(self, now: float) -> None:
        """End the connection if it is late; `now` is the event loop's time in seconds."""
        unread_bytes = self._count_unread()
        if not unread_bytes or unread_bytes < self._unread_bytes:
            self._unread_since = now
        self._unread_bytes = unread_bytes
        if now - self._unread_since >= self._bounds.reply_stall_seconds:
            self._connections.count_end("reply-stalled")
            self.transport.abort()
        elif self._deadline is not None and now >= self._deadline:
            self._on_deadline()

    def _count_unread(self) -> int:
        """Return how much of the replies waits: 0, or what is here and with the kernel, which takes much at once."""
        here: int = self.transport.get_write_buffer_size()
        if not here:
            return 0
        with_kernel = array("i", [0])
        with suppress(OSError):
            ioctl(self.transport.get_extra_info("socket").fileno(), TIOCOUTQ, with_kernel)
        return here + with_kernel[0]

    def idle_since(self) -> float | None:
        """Return since when the connection waits for a request, in the event loop's seconds; None: it doesn't."""
        if self._unanswered or self._deadline is None or self.transport.get_write_buffer_size():
            return None
        return self._waits_since

    def give_way(self) -> None:
        """Close the connection, which waits for a request."""
        self._last_words, self._deadline = b"", None
        self.transport.close()

    def _on_deadline(self) -> None:
        if self._last_words is not None:
            self.transport.abort()
        elif not self._unanswered:
            is_in_head = self.headers is not _TRAILERS
            if is_in_head or self.cycle is None:
                self._connections.count_end("head-deadline")
            self._end(self._document(_too_late("head", self._bounds.head_deadline_seconds)) if is_in_head else b"")
        elif self.cycle.more_body and not self.flow.read_paused:
            self._connections.count_end("body-deadline")
            self._end(self._document(_too_late("body", self._bounds.body_deadline_seconds)))

    # The parser's callbacks

    def on_headers_complete(self) -> None:
        """Begin to answer a request whose head has come and is as it must be."""
        if self.parser.should_upgrade():
            self._offers_upgrade = True
            if self.parser.get_method() == b"CONNECT":
                raise MethodNotAllowed("This server is no proxy.")
            return
        check_fields(self.parser.get_http_version(), self.headers)
        if self._head_bytes + self._segment_bytes > HEAD_BYTES_MAX:
            check_size(self.url, self.headers)
        super().on_headers_complete()
        self.headers = _TRAILERS
        self._head_bytes = 0
        self._unanswered += 1
        self._deadline = self.loop.time() + self._bounds.body_deadline_seconds

    def on_message_complete(self) -> None:
        """Note that the whole request has come."""
        if not self._offers_upgrade and not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for it, or end: as uvicorn does, without a timer for each reply."""
        self._unanswered -= 1
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._deadline = None
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._last_words is not None:
            self._say_last_words()
        else:
            self._wait(self.timeout_keep_alive if self.headers is _TRAILERS else self._bounds.head_deadline_seconds)

    # Parts

    def _wait(self, seconds: float) -> None:
        self._waits_since = self.loop.time()
        self._deadline = self._waits_since + min(seconds, self._bounds.head_deadline_seconds)

    def _go_on_without_upgrade(self, rest: memoryview) -> None:
        """Parse a request again without its offer to upgrade, and then the `rest`, which is its body and what follows.

        llhttp takes what follows such a request as another protocol's. A server may ignore the offer (RFC 9110,
        section 7.8): the request is then as if it had not been made.
        """
        try:
            while True:
                head = self._head_without_upgrade()
                self._offers_upgrade = False
                self.parser = _new_parser(self)
                self.parser.feed_data(head)
                try:
                    self.parser.feed_data(rest)
                except httptools.HttpParserUpgrade as offer:
                    rest = rest[offer.args[0] :]
                else:
                    return
        except httptools.HttpParserError as error:
            self._refuse(error)

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([self.parser.get_method() + b" " + self.url + b" HTTP/" + version, *fields, b"", b""])

    def _refuse(self, error: httptools.HttpParserError) -> None:
        """Answer what llhttp or a check of ours refused; `_end` what has come before it."""
        cause = error.__context__
        self._end(self._refusal(cause if isinstance(cause, Problem) else BadRequest(f"This is not HTTP/1.1: {error}.")))

    def _refusal(self, problem: Problem) -> bytes:
        self._connections.count_end("refused")
        return self._document(problem)

    def _end(self, last_words: bytes) -> None:
        """Take no more requests: answer what has come whole, then say `last_words` and close.

        What has come in part is dropped: it has not begun if it stands behind another, else its reader is told that
        the client has left.
        """
        self._last_words, self._deadline = last_words, None
        cycle = self.cycle
        if self._unanswered and cycle.more_body and not cycle.response_complete:
            self._unanswered -= 1
            if self.pipeline:
                self.pipeline.popleft()
            else:
                cycle.disconnected = True
                cycle.message_event.set()
                if cycle.response_started:
                    self._last_words = b""
        if not self._unanswered:
            self._say_last_words()

    def _say_last_words(self) -> None:
        """Write them and close in stages, so that a reset doesn't overtake them (RFC 9112, section 9.6)."""
        if not self._last_words or self.transport.is_closing():
            self.transport.close()
            return
        self.transport.write(self._last_words)
        self.transport.write_eof()
        self.flow.resume_reading()
        self._deadline = self.loop.time() + _LINGER_SECONDS

    def _document(self, problem: Problem) -> bytes:
        body = problem.body(quote(self.scope.get("path", "")) if self.scope else "")
        headers = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            "connection": "close",
            **problem.headers(),
        }
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        fields = [name + b": " + value for name, value in [*self.server_state.default_headers, *lines]]
        return STATUS_LINE[problem.status] + b"\r\n".join([*fields, b"", body])


def _new_parser(target: HttpProtocol) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(target)
    # As uvicorn has it: what follows a request that closes the connection is skipped.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def _too_late(what: str, seconds: float) -> RequestTimeout:
    return RequestTimeout(f"The request's {what} did not come within {seconds:g} seconds. Send it again.")
