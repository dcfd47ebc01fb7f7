"""Where the keys that verify tokens come from: a JWKS URL, or a file."""

import asyncio
import ssl
from pathlib import Path
from typing import Final, Protocol

import httpx2

from common.access.key_documents import DOCUMENT_BYTES_MAX, Unusable, read_file

READ_TIMEOUT_SECONDS: Final = 4.0
_HEADERS: Final = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}


class KeySource(Protocol):
    """A place that has the keys."""

    name: str
    """The setting that names the place."""
    interval_seconds: float
    """How often the place is read."""
    cooldown_seconds: float
    """The least time between two reads that a token with an unknown key asks for."""

    async def read(self) -> bytes | Unusable:
        """Return the document with the keys."""
        ...


class JwksUrl:
    """A JWKS on an HTTP server. Redirects are not followed: the keys come from the host that the operator named."""

    name = "JWT_JWKS_URL"
    cooldown_seconds = 10.0

    def __init__(self, url: str, interval_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self._url = url
        self._ssl_context = ssl.create_default_context()

    async def read(self) -> bytes | Unusable:
        """Return the body of the reply, which has at most `DOCUMENT_BYTES_MAX` and comes within 4 seconds."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_SECONDS), self._client() as client:
                return await self._read(client)
        except TimeoutError:
            return Unusable(f"gave no whole reply within {READ_TIMEOUT_SECONDS:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return Unusable(f"cannot be reached: {str(error) or type(error).__name__}")

    def _client(self) -> httpx2.AsyncClient:
        # A proxy of the environment must not see or change what is meant to stay on loopback.
        return httpx2.AsyncClient(verify=self._ssl_context, trust_env=self._url.startswith("https:"))

    async def _read(self, client: httpx2.AsyncClient) -> bytes | Unusable:
        body = bytearray()
        async with client.stream("GET", self._url, headers=_HEADERS) as response:
            if response.status_code != httpx2.codes.OK:
                return Unusable(f"answers {response.status_code} instead of 200")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > DOCUMENT_BYTES_MAX:
                    return Unusable(f"has more than {DOCUMENT_BYTES_MAX} bytes")
        return bytes(body)


class KeysFile:
    """A file with a JWKS or with public keys in PEM. It is read each second, so that a new one counts at once."""

    name = "JWT_JWKS_FILE"
    interval_seconds = 1.0
    cooldown_seconds = 1.0

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> bytes | Unusable:
        """Return the file's bytes."""
        return await asyncio.to_thread(read_file, self._path)
