"""A connection pooler as PgBouncer is one in the session's first moments. It was compared with PgBouncer 1.18."""

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from typing import Final

from support.proxy import Proxy

_TLS_REQUEST: Final = 80877103
# https://www.pgbouncer.org/features.html: the startup parameters that PgBouncer passes on.
_PASSED_ON: Final = {
    *("user", "database", "client_encoding", "datestyle", "intervalstyle", "timezone"),
    *("standard_conforming_strings", "application_name"),
}


@dataclass
class Pooler(Proxy):
    """Refuses each startup parameter that it can't pass on, or ignores it if the administrator has listed it.

    Args:
        ignored: PgBouncer's `ignore_startup_parameters`.
    """

    ignored: set[str] = field(default_factory=set)

    async def _serve(self, accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=accepted)
        try:
            parameters = await _read_startup(reader, writer)
            unknown = [name for name in parameters if name.lower() not in _PASSED_ON | self.ignored]
            if unknown:
                writer.write(_refusal(f"unsupported startup parameter: {unknown[0]}"))
                await writer.drain()
                writer.close()
                return
            passed = {name: value for name, value in parameters.items() if name.lower() in _PASSED_ON}
            reader.feed_data(_startup(passed))
            await self._connect(reader, writer)
        finally:
            writer.transport.abort()


async def _read_startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, str]:
    length, code = struct.unpack("!ii", await reader.readexactly(8))
    if code == _TLS_REQUEST:
        writer.write(b"N")
        return await _read_startup(reader, writer)
    words = (await reader.readexactly(length - 8)).decode().split("\0")
    return dict(zip(words[::2], words[1::2], strict=False))


def _startup(parameters: dict[str, str]) -> bytes:
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack("!ii", len(body) + 8, 3 << 16) + body


def _refusal(message: str) -> bytes:
    body = f"SFATAL\0C08P01\0M{message}\0\0".encode()
    return b"E" + struct.pack("!i", len(body) + 4) + body
