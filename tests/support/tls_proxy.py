"""TLS in front of a PostgreSQL that has none, as `ssl = on` makes it."""

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from support.proxy import Proxy

# PostgreSQL manual, section 54.7: SSLRequest.
_TLS_REQUEST: Final = bytes.fromhex("0000000804d2162f")


@dataclass
class TlsProxy(Proxy):
    """A proxy that a client can pass by TLS only, after PostgreSQL's handshake.

    Args:
        context: the certificate, and whether the client needs one.
    """

    context: ssl.SSLContext | None = None

    async def _serve(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        accepted.setblocking(False)
        with suppress(OSError):
            if await loop.sock_recv(accepted, len(_TLS_REQUEST)) != _TLS_REQUEST:
                accepted.close()
                return
            await loop.sock_sendall(accepted, b"S")
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self.context)
            try:
                await self._connect(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
            finally:
                transport.abort()
