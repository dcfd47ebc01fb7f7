"""A TCP proxy between a service and a server: a network that a test can slow down, silence, break or cut."""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65536
HOST = "127.0.0.1"


@dataclass(eq=False)
class _Link:
    """One connection: both ends, and the bytes that may still pass."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    bytes_left: int | None
    forgotten: bool = False

    def reset(self) -> None:
        """Reset it (RST)."""
        for writer in (self.client, self.server):
            found = writer.get_extra_info("socket")
            if found is not None:
                with suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


@dataclass
class Proxy:
    """Listens on `port` and passes everything on to `target_port`, as its faults allow.

    Args:
        port: where it listens.
        target_port: of the server, on the same host.
    """

    port: int
    target_port: int
    delay_seconds: float = 0.0
    """How long each piece waits."""
    answer_delay_seconds: float = 0.0
    """How long each piece from the server waits in addition."""
    cut_after_bytes: int | None = None
    """New connections are reset after so many bytes, counted both ways."""
    forget_at: Callable[[bytes], bool] | None = None
    """Given a piece that a client sent: whether its connection is forgotten now. The first true is the last call."""
    _links: set[_Link] = field(default_factory=set)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _listener: socket.socket = field(default_factory=socket.socket)

    async def __aenter__(self) -> Self:
        self._open.set()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((HOST, self.port))
        self._listener.listen()
        self._listener.setblocking(False)
        # Not asyncio.start_server: it leaves a connection open that it accepts while it is closed (Python 3.11).
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        # Every task takes its first step, from which on it closes its connection.
        await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Break every connection."""
        for link in list(self._links):
            link.reset()

    def silence(self) -> None:
        """Let nothing through (a blackhole). New connections are accepted and get no answer."""
        self._open.clear()

    def heal(self, *, forget: bool = False) -> None:
        """Let everything through again.

        Args:
            forget: existing connections stay silent for ever, as when a firewall lost its state.
        """
        if forget:
            for link in self._links:
                link.forgotten = True
        self.delay_seconds, self.answer_delay_seconds, self.cut_after_bytes = 0.0, 0.0, None
        self._open.set()

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            # The client has left already.
            return
        task = asyncio.create_task(self._serve(accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=accepted)
        try:
            await self._connect(reader, writer)
        finally:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self.target_port)
        except OSError:
            return
        link = _Link(writer, server_writer, self.cut_after_bytes)
        self._links.add(link)
        pumps = {
            asyncio.create_task(self._pump(link, reader, server_writer)),
            asyncio.create_task(self._pump(link, server_reader, writer)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for end in (writer, server_writer):
                with suppress(OSError, TimeoutError):
                    await asyncio.wait_for(end.drain(), 1)
                end.close()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._links.discard(link)
            server_writer.transport.abort()

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                answer_delay_seconds = self.answer_delay_seconds if writer is link.client else 0.0
                if delay_seconds := self.delay_seconds + answer_delay_seconds:
                    await asyncio.sleep(delay_seconds)
                await self._open.wait()
                if self.forget_at and writer is link.server and self.forget_at(data):
                    link.forgotten, self.forget_at = True, None
                while link.forgotten:
                    await asyncio.sleep(3600)
                if link.bytes_left is not None:
                    data, link.bytes_left = data[: link.bytes_left], link.bytes_left - len(data)
                writer.write(data)
                await writer.drain()
                if link.bytes_left is not None and link.bytes_left <= 0:
                    link.reset()
                    return
