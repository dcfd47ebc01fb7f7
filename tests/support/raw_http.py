"""HTTP/1.1 byte by byte: a server as in production, and a client that sends exactly the given bytes."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import uvicorn
import uvloop
from starlette.types import ASGIApp

from common.http.connections import ConnectionBounds
from common.http.server import BackgroundServer, api_server_options, background_server
from common.http.settings import HttpApiSettings
from support.ports import free_port


@dataclass(frozen=True)
class Reply:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection; each of its reads has a deadline."""

    def __init__(self, port: int, *, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        self._got = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *segments: bytes, pause_seconds: float = 0.005) -> Self:
        """Send each as a segment of its own. The network may still join them."""
        for number, segment in enumerate(segments):
            if number:
                time.sleep(pause_seconds)
            self.socket.sendall(segment)
        return self

    def finish(self) -> Self:
        """Shut down the sending side."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reply(self, *, to_head: bool = False) -> Reply:
        """Read one reply."""
        while b"\r\n\r\n" not in self._got:
            self._more()
        head, _, self._got = self._got.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = 0 if to_head else int(headers.get("content-length", "0"))
        while len(self._got) < length:
            self._more()
        body, self._got = self._got[:length], self._got[length:]
        return Reply(int(status.split()[1]), headers, body)

    def closed(self) -> bool:
        """Whether the server closes the connection without sending anything before."""
        try:
            rest = self.socket.recv(1)
        except ConnectionResetError:
            return not self._got
        return not rest and not self._got

    def _more(self) -> None:
        if not (data := self.socket.recv(65536)):
            raise EOFError(self._got)
        self._got += data


@contextmanager
def serving(app: ASGIApp, bounds: ConnectionBounds | None = None, *, loop: str = "uvloop") -> Iterator[int]:
    """Serve `app` in a thread, on the event loop of that name, as the services are configured; yield the port."""
    port = free_port()
    with running(background_server(app, "127.0.0.1", port, bounds or ConnectionBounds()), loop=loop):
        yield port


@contextmanager
def serving_api(app: ASGIApp, settings: HttpApiSettings) -> Iterator[int]:
    """Serve an API in a thread, with its lifespan, as `walletctl` does; yield the port."""
    port = free_port()
    config = uvicorn.Config(app, port=port, lifespan="on", timeout_graceful_shutdown=5, **api_server_options(settings))
    with running(BackgroundServer(config), is_graceful=True):
        yield port


@contextmanager
def running(server: BackgroundServer, *, loop: str = "uvloop", is_graceful: bool = False) -> Iterator[None]:
    """Run the server in a thread, until the block ends."""
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop

    def run() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(server.serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        _wait_until_started(server)
        yield
    finally:
        server.force_exit = not is_graceful
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def _wait_until_started(server: BackgroundServer) -> None:
    # A connection that asks whether it listens would still be one of its connections when the test begins.
    deadline = time.monotonic() + 20
    while not server.started:
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.005)


def request(
    line: str = "POST /first HTTP/1.1", fields: Sequence[str] = (), body: bytes = b"", host: str = "a"
) -> bytes:
    """Write a request; an empty `host` leaves the field out."""
    hosts = [f"Host: {host}"] if host else []
    return "\r\n".join([line, *hosts, *fields, "", ""]).encode("latin-1") + body


def post(path: str, body: bytes = b"", *fields: str) -> bytes:
    """Write a POST with a Content-Length."""
    return request(f"POST {path} HTTP/1.1", [f"Content-Length: {len(body)}", *fields], body)
