"""HTTP/1.1 on one connection: uvicorn's protocol on llhttp, stricter where RFC 9112 asks for it.

What llhttp refuses stays refused (docs/decisions/0015-http-framing.md). This module adds:
- an offer to upgrade is ignored, and the body of its request stays a body
- the rules on Host, Transfer-Encoding and the HTTP version
- deadlines
- replies to a client that has shut down its sending side
- problem documents
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


class _DiscardedFields(list[tuple[bytes, bytes]]):
    """A list that discards the trailer fields after a chunked body (RFC 9110, section 6.5.1)."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        """Discard the field."""


_DISCARDED: Final = _DiscardedFields()


class HttpProtocol(HttpToolsProtocol):
    """One connection, whose requests are answered in their order.

    When the connection has to end, complete requests are answered first. Then the client gets the reason. Later bytes
    are ignored.

    Args:
        connections: all connections of this process.
        options: uvicorn's own.
    """

    def __init__(self, *, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        # The fields of the head that is being parsed. After the head, fields are trailers and discarded.
        self.headers = _DISCARDED
        self._connections = connections
        self._bounds = connections.bounds
        # Requests whose head is complete and whose reply isn't.
        self._unanswered_count = 0
        self._deadline: float | None = None
        self._waiting_since = 0.0
        self._offers_upgrade = False
        self._head_bytes = self._segment_bytes = 0
        self._final_reply: bytes | None = None
        self._unread_bytes = 0
        self._unread_since = 0.0

    # The connection

    def connection_made(self, transport: Any) -> None:
        """Accept the connection, or answer 503 if the process is at capacity."""
        super().connection_made(transport)
        if self._connections.add(self):
            self._unread_since = self.loop.time()
            self._await_request(self._bounds.head_deadline_seconds)
            return
        self._final_reply = b""
        transport.write(self._encode(Unavailable("The server is at capacity. Retry later.")))
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Discard the connection."""
        self._connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, unless the connection is ending."""
        if self._final_reply is not None:
            return
        self._segment_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._parse_without_upgrade(memoryview(data)[offer.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse_unparsed(error)
        else:
            if self.headers is not _DISCARDED:
                self._head_bytes += len(data)
                if not self._unanswered_count:
                    self._deadline = self._waiting_since + self._bounds.head_deadline_seconds
                if self._head_bytes > HEAD_BYTES_MAX:
                    self._refuse(too_large())

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer complete requests though the client sends no more (RFC 9112, section 9.6); return True meanwhile."""
        if self._final_reply is None:
            self._finish(b"")
        return self._unanswered_count > 0

    def check(self, now: float) -> None:
        """End the connection if a deadline has passed; `now` is the event loop's time in seconds."""
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
        """Return how many bytes wait for the client, with those of the kernel; 0 if the write buffer is empty."""
        in_buffer: int = self.transport.get_write_buffer_size()
        if not in_buffer:
            return 0
        in_kernel = array("i", [0])
        with suppress(OSError):
            ioctl(self.transport.get_extra_info("socket").fileno(), TIOCOUTQ, in_kernel)
        return in_buffer + in_kernel[0]

    def idle_since(self) -> float | None:
        """Return since when the connection has been idle, in the event loop's seconds, or None if it is not idle."""
        if self._unanswered_count or self._deadline is None or self.transport.get_write_buffer_size():
            return None
        return self._waiting_since

    def close_idle(self) -> None:
        """Close the connection, which is idle."""
        self._final_reply, self._deadline = b"", None
        self.transport.close()

    def _on_deadline(self) -> None:
        if self._final_reply is not None:
            self.transport.abort()
        elif not self._unanswered_count:
            is_in_head = self.headers is not _DISCARDED
            if is_in_head or self.cycle is None:
                self._connections.count_end("head-deadline")
            self._finish(self._encode(_timed_out("head", self._bounds.head_deadline_seconds)) if is_in_head else b"")
        elif self.cycle.more_body and not self.flow.read_paused:
            self._connections.count_end("body-deadline")
            self._finish(self._encode(_timed_out("body", self._bounds.body_deadline_seconds)))

    # The parser's callbacks

    def on_headers_complete(self) -> None:
        """Begin to answer a request whose head is complete and correct."""
        if self.parser.should_upgrade():
            self._offers_upgrade = True
            if self.parser.get_method() == b"CONNECT":
                raise MethodNotAllowed("This server is not a proxy.")
            return
        check_fields(self.parser.get_http_version(), self.headers)
        if self._head_bytes + self._segment_bytes > HEAD_BYTES_MAX:
            check_size(self.url, self.headers)
        super().on_headers_complete()
        self.headers = _DISCARDED
        self._head_bytes = 0
        self._unanswered_count += 1
        self._deadline = self.loop.time() + self._bounds.body_deadline_seconds

    def on_message_complete(self) -> None:
        """Tell the application that the request is complete."""
        if not self._offers_upgrade and not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Start the next request, wait for it, or close. Uvicorn does the same, but with a timer for each reply."""
        self._unanswered_count -= 1
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._deadline = None
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._final_reply is not None:
            self._send_final_reply()
        else:
            self._await_request(
                self.timeout_keep_alive if self.headers is _DISCARDED else self._bounds.head_deadline_seconds
            )

    # Parts

    def _await_request(self, seconds: float) -> None:
        self._waiting_since = self.loop.time()
        self._deadline = self._waiting_since + min(seconds, self._bounds.head_deadline_seconds)

    def _parse_without_upgrade(self, rest: memoryview) -> None:
        """Parse the request again without its offer to upgrade, and then `rest`, the bytes after its head.

        llhttp takes these bytes for another protocol. A server may ignore the offer (RFC 9110, section 7.8), and then
        the request is the same as one without an offer.
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
            self._refuse_unparsed(error)

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([self.parser.get_method() + b" " + self.url + b" HTTP/" + version, *fields, b"", b""])

    def _refuse_unparsed(self, error: httptools.HttpParserError) -> None:
        """Refuse what llhttp or one of the checks here has refused."""
        cause = error.__context__
        self._refuse(cause if isinstance(cause, Problem) else BadRequest(f"This is not HTTP/1.1: {error}."))

    def _refuse(self, problem: Problem) -> None:
        self._connections.count_end("refused")
        self._finish(self._encode(problem))

    def _finish(self, final_reply: bytes) -> None:
        """Accept no more requests, answer the complete ones, then send `final_reply` and close.

        An incomplete request is dropped. If the application already reads it, the application gets a disconnect.
        """
        self._final_reply, self._deadline = final_reply, None
        cycle = self.cycle
        if self._unanswered_count and cycle.more_body and not cycle.response_complete:
            self._unanswered_count -= 1
            if self.pipeline:
                self.pipeline.popleft()
            else:
                cycle.disconnected = True
                cycle.message_event.set()
                if cycle.response_started:
                    self._final_reply = b""
        if not self._unanswered_count:
            self._send_final_reply()

    def _send_final_reply(self) -> None:
        """Send it and close in stages, so that a TCP reset doesn't overtake it (RFC 9112, section 9.6)."""
        if not self._final_reply or self.transport.is_closing():
            self.transport.close()
            return
        self.transport.write(self._final_reply)
        self.transport.write_eof()
        self.flow.resume_reading()
        self._deadline = self.loop.time() + _LINGER_SECONDS

    def _encode(self, problem: Problem) -> bytes:
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
    # As in uvicorn: bytes after a request that closes the connection are ignored.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def _timed_out(what: str, seconds: float) -> RequestTimeout:
    return RequestTimeout(f"The request's {what} did not arrive within {seconds:g} seconds. Send the request again.")
